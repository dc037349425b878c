package page

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"relay/relay/admin"
)

// trialForm is the data of the screen that sends a test.
type trialForm struct {
	Endpoint string
	Types    []string // of the catalogue
	Type     string
	Data     string
	Problem  *refusal
	Result   *admin.TestResult // of a test that could not be stored
	Gone     bool              // that was shown before
}

// askTest shows the form, with the example of the type that the address names.
func (c *call) askTest() error {
	form, err := c.trialForm(c.r.URL.Query().Get("type"))
	if err != nil {
		return err
	}
	if mark := c.r.URL.Query().Get("made"); mark != "" {
		kept, _ := c.p.shown.Get(mark)
		result, is := kept.(*admin.TestResult)
		form.Result, form.Gone = result, !is
		c.p.shown.Remove(mark)
	}
	c.show(http.StatusOK, "test", c.t("test.title", c.called(form.Endpoint)), form)
	return nil
}

// trialForm is the form for a type of the catalogue. An endpoint that does not exist is an error.
func (c *call) trialForm(kind string) (*trialForm, error) {
	f := &trialForm{Endpoint: c.r.PathValue("name"), Type: kind}
	if !c.may(admin.Test) {
		return nil, &refusal{Status: http.StatusForbidden, Code: "forbidden", Detail: c.t("test.forbidden"), Own: true}
	}
	var e admin.Endpoint
	if err := c.get(escaped("/v1/endpoints/%s", f.Endpoint), nil, &e); err != nil {
		return nil, err
	}
	var list admin.TypeList
	if err := c.get("/v1/types", nil, &list); err != nil {
		return nil, err
	}
	for _, t := range list.Types {
		f.Types = append(f.Types, t.Type)
		if t.Type == kind && len(t.Example) > 0 {
			var pretty bytes.Buffer
			if json.Indent(&pretty, t.Example, "", "  ") == nil {
				f.Data = pretty.String()
			}
		}
	}
	return f, nil
}

// test sends a test, and goes on to its delivery.
func (c *call) test() error {
	err := c.act(func() (step, error) {
		name := c.r.PathValue("name")
		body := map[string]any{}
		if kind := strings.TrimSpace(c.r.PostForm.Get("type")); kind != "" {
			body["type"] = kind
		}
		if data := strings.TrimSpace(c.r.PostForm.Get("data")); data != "" {
			if !json.Valid([]byte(data)) {
				return step{}, &refusal{Status: http.StatusBadRequest, Code: "invalid_json", Field: "data", Detail: c.t("test.not_json"), Own: true}
			}
			body["data"] = json.RawMessage(data)
		}
		var result admin.TestResult
		if err := c.send(http.MethodPost, escaped("/v1/endpoints/%s/test", name), body, &result); err != nil {
			return step{}, err
		}
		if result.ID != "" {
			return step{escaped("/deliveries/%s", result.ID), "test." + result.State}, nil
		}
		mark := newMark()
		c.p.shown.Add(mark, &result)
		return step{to: escaped("/endpoints/%s/test", name) + "?made=" + mark}, nil
	})
	return c.formAgain(err, func(problem *refusal) error {
		form, err := c.trialForm("")
		if err != nil {
			return err
		}
		form.Type, form.Data, form.Problem = c.r.PostForm.Get("type"), c.r.PostForm.Get("data"), problem
		c.show(problem.Status, "test", c.t("test.title", c.called(form.Endpoint)), form)
		return nil
	})
}

// formAgain shows a form again with what was typed, if the API refused it. Other errors are those of a screen.
func (c *call) formAgain(err error, show func(problem *refusal) error) error {
	if err == nil {
		return nil
	}
	switch r := c.refusalOf(err); r.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return err
	default:
		return show(r)
	}
}
