package registry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"relay/policy"
)

// Text is an endpoint as the file would have it. What must not be shown is an env("…"), and comments tell what its
// variables hold. Errors: ErrUnknown, ErrFixed, config.Flaws.
func (r *Registry) Text(name string) (string, error) {
	e, err := r.Get(name)
	if err != nil {
		return "", err
	}
	x := exported{endpoint: name, mark: rand.Text()}
	spec, err := x.masked(e.Spec)
	if err != nil {
		return "", err
	}
	text, err := r.compiler().Text(name, spec)
	if err != nil {
		return "", err
	}
	if e.Secrets > 0 {
		text = strings.Replace(text, "{\n", "{\n  secrets = ["+x.secrets(e.Secrets)+"]\n", 1)
	}
	for _, v := range x.variables {
		text = strings.ReplaceAll(text, strconv.Quote(x.mark+v), fmt.Sprintf("env(%q)", v))
	}
	return x.comments.String() + text, nil
}

// exported is an endpoint that becomes text.
type exported struct {
	endpoint  string
	mark      string // before the name of a variable, instead of its env(); nobody can guess it
	variables []string
	comments  strings.Builder
}

// hide adds a variable, and returns the value that stands for it.
func (x *exported) hide(suffix, about string) json.RawMessage {
	name := variableOf(x.endpoint + "_" + suffix)
	for n := 2; slices.Contains(x.variables, name); n++ { // of headers that differ in their signs alone
		name = variableOf(fmt.Sprintf("%s_%s_%d", x.endpoint, suffix, n))
	}
	x.variables = append(x.variables, name)
	fmt.Fprintf(&x.comments, "# %s: %s\n", name, about)
	return json.RawMessage(strconv.Quote(x.mark + name))
}

// variableOf is a name for the environment.
func variableOf(text string) string {
	name := strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(text))
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// masked is the settings with variables for what may be a credential.
func (x *exported) masked(spec json.RawMessage) (json.RawMessage, error) {
	members, err := membersOf(spec)
	if err != nil {
		return nil, err
	}
	var text string
	if json.Unmarshal(members["url"], &text) == nil {
		if u, err := url.Parse(text); err != nil || u.User != nil || u.RawQuery != "" {
			shown := policy.Hidden
			if err == nil {
				e := policy.Endpoint{URL: u}
				shown = e.ShownURL().String()
			}
			members["url"] = x.hide("url", shown+", whole")
		}
	}
	x.values(members, "headers", func(name string) string { return "value of the header " + strconv.Quote(name) }, func(string) bool { return true })
	x.values(members, "tls", func(string) string { return "the private key of TLS" }, func(name string) bool { return name == "key" })
	if body, ok := members["body"]; ok {
		fmt.Fprintf(&x.comments, "# Its body is that of the block body %s: an endpoint of the file has it written out.\n", body)
	}
	return json.Marshal(members)
}

// values hides values of an object.
func (x *exported) values(members map[string]json.RawMessage, object string, about func(name string) string, secret func(name string) bool) {
	var values map[string]json.RawMessage
	if json.Unmarshal(members[object], &values) != nil || values == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if secret(name) {
			values[name] = x.hide(object+"_"+name, about(name))
		}
	}
	members[object], _ = json.Marshal(values) // it was JSON
}

// secrets are as many variables.
func (x *exported) secrets(n int) string {
	var all []string
	for range n {
		all = append(all, string(x.hide("secret", "relay secret show "+x.endpoint)))
	}
	return strings.Join(all, ", ")
}
