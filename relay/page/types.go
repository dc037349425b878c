package page

import (
	"bytes"
	"encoding/json"
	"net/http"

	"relay/policy"
	"relay/relay/admin"
)

// typeRoutes are the screens of the catalogue, and of what would become of an event.
func typeRoutes() []route {
	return []route{
		{pattern: "GET /types", do: (*call).showTypes},
		{pattern: "GET /explain", whole: true, do: (*call).showExplain},
		{pattern: "POST /explain", whole: true, do: (*call).explain},
	}
}

// typeView is an event type as it is shown.
type typeView struct {
	admin.EventType
	Deprecated bool
	Rows       []fieldView
	Shown      *bodyView // example; nil for none
	Text       *bodyView // schema; nil for none
}

// fieldView is a field of the data.
type fieldView struct {
	policy.Field
	Deprecated bool
}

func (c *call) showTypes() error {
	var list admin.TypeList
	if err := c.get("/v1/types", nil, &list); err != nil {
		return err
	}
	var all []typeView
	for i := range list.Types {
		all = append(all, newTypeView(&list.Types[i]))
	}
	c.show(http.StatusOK, "types", c.t("layout.types"), all)
	return nil
}

func newTypeView(t *admin.EventType) typeView {
	v := typeView{EventType: *t}
	old := deprecated(t.Schema)
	v.Deprecated = old[""]
	for _, f := range t.Fields {
		v.Rows = append(v.Rows, fieldView{f, f.Name != "" && old[f.Name]})
	}
	if len(t.Example) > 0 {
		v.Shown = newBody("example-"+t.Type, webhook(t))
	}
	if len(t.Schema) > 0 {
		v.Text = newBody("schema-"+t.Type, t.Schema)
	}
	return v
}

// webhook is what is sent of an event of a type, with the example of its data: the body that endpoints get without one of their own.
func webhook(t *admin.EventType) []byte {
	var pretty bytes.Buffer
	whole, err := json.Marshal(struct {
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Timestamp string          `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{"evt_0199c1f2a7b04c3d8e5f60718293a4b5", t.Type, "2026-01-02T15:04:05Z", t.Example})
	if err != nil || json.Indent(&pretty, whole, "", "  ") != nil {
		return t.Example
	}
	return pretty.Bytes()
}

// maxSchemaDepth bounds how deep a schema is walked: it may be nested as deep as JSON is.
const maxSchemaDepth = 16

// deprecated finds what a schema marks as deprecated (JSON Schema 2020-12, validation, section 9.3), by the names of
// policy.Field; "" is the type itself.
func deprecated(schema json.RawMessage) map[string]bool {
	found := map[string]bool{}
	var walk func(raw json.RawMessage, name string, depth int)
	walk = func(raw json.RawMessage, name string, depth int) {
		var s struct {
			Deprecated bool                       `json:"deprecated"`
			Properties map[string]json.RawMessage `json:"properties"`
			Items      json.RawMessage            `json:"items"`
		}
		if depth > maxSchemaDepth || json.Unmarshal(raw, &s) != nil {
			return // another form of schema, like true
		}
		if s.Deprecated {
			found[name] = true
		}
		for member, below := range s.Properties {
			if name != "" {
				member = name + "." + member
			}
			walk(below, member, depth+1)
		}
		if s.Items != nil {
			walk(s.Items, name+"[]", depth+1)
		}
	}
	walk(schema, "", 0)
	return found
}
