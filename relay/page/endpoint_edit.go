package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"relay/ingest/problem"
	"relay/internal/sorting"
	"relay/policy"
	"relay/relay/admin"
)

// sendIf is send for a change that is refused if the endpoint has another revision.
func (c *call) sendIf(revision, method, address string, body, into any) error {
	path, query, _ := strings.Cut(address, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	r, err := c.inner(method, path, q, text)
	if err != nil {
		return err
	}
	r.Header.Set("If-Match", `"`+revision+`"`)
	return c.do(r, into)
}

// needs refuses a screen of which all is for a right that the session lacks.
func (c *call) needs(right admin.Right) error {
	if c.may(right) {
		return nil
	}
	return &refusal{Status: http.StatusForbidden, Code: string(problem.Forbidden), Detail: c.t("form.forbidden", string(right)), Own: true}
}

// choices are what endpoints made at run time may be.
func (c *call) choices() (policy.Choices, error) {
	var list admin.EndpointList
	if err := c.get("/v1/endpoints", url.Values{"limit": {"1"}}, &list); err != nil || list.Runtime == nil {
		return policy.Choices{}, err
	}
	return *list.Runtime, nil
}

// madeEndpoint reads an endpoint that was made at run time. It answers itself, with nil, if the file has it.
func (c *call) madeEndpoint() (*admin.Endpoint, error) {
	e := new(admin.Endpoint)
	if err := c.get(escaped("/v1/endpoints/%s", c.r.PathValue("name")), nil, e); err != nil {
		return nil, err
	}
	if e.Made == nil {
		c.show(http.StatusConflict, "fixed", e.Name, e)
		return nil, nil
	}
	return e, nil
}

// emptyForm is a form with what the file and the session allow.
func (c *call) emptyForm(name string) (*endpointForm, error) {
	choices, err := c.choices()
	f := &endpointForm{Name: name, Choices: choices, Bound: c.access != nil && len(c.access.Tenants) == 1, Customer: !c.whole(), Types: c.catalogueTypes(), Typed: url.Values{}}
	return f, err
}

func (c *call) newEndpoint() error {
	if err := c.needs(admin.Endpoints); err != nil {
		return err
	}
	f, err := c.emptyForm("")
	if err != nil {
		return err
	}
	f.show(settings{})
	c.showForm(http.StatusOK, f)
	return nil
}

func (c *call) showForm(status int, f *endpointForm) {
	title := c.t("form.new")
	if f.Name != "" {
		title = c.t("form.edit", c.called(f.Name))
	}
	c.show(status, "endpoint-form", title, f)
}

// makeEndpoint makes an endpoint, and goes on to its secret, if the session may see it.
func (c *call) makeEndpoint() error {
	var f *endpointForm
	err := c.act(func() (step, error) {
		if err := c.needs(admin.Endpoints); err != nil {
			return step{}, err
		}
		var err error
		if f, err = c.emptyForm(""); err != nil {
			return step{}, err
		}
		f.Typed = c.r.PostForm
		s := f.settings(c)
		if headers := f.headers(c); len(headers) > 0 {
			s["headers"] = headers
		}
		if name := f.Typed.Get("name"); name != "" {
			s["name"] = name
		}
		if len(f.Problems) > 0 {
			return step{}, errForm
		}
		var made admin.Endpoint
		if err := c.send(http.MethodPost, "/v1/endpoints", s, &made); err != nil {
			return step{}, err
		}
		if c.may(admin.Secrets) && made.Made != nil && made.Made.Secrets > 0 {
			return step{escaped("/endpoints/%s/secret", made.Name), "made"}, nil
		}
		return step{escaped("/endpoints/%s", made.Name), "made"}, nil
	})
	return c.formAgain(err, func(r *refusal) error { return c.refusedForm(f, r) })
}

// errForm says that what was typed cannot be read; the form notes what and why.
var errForm = &refusal{Status: http.StatusUnprocessableEntity, Code: string(problem.InvalidEndpoint)}

// refusedForm shows a form with what is wrong.
func (c *call) refusedForm(f *endpointForm, r *refusal) error {
	if f == nil { // the form itself could not be read
		return r
	}
	if r != errForm {
		f.refuse(r, c)
	}
	c.showForm(r.Status, f)
	return nil
}

func (c *call) editEndpoint() error {
	if err := c.needs(admin.Endpoints); err != nil {
		return err
	}
	e, err := c.madeEndpoint()
	if e == nil {
		return err
	}
	f, err := c.emptyForm(e.Name)
	if err != nil {
		return err
	}
	f.of(e)
	f.show(f.began(e.Made))
	c.showForm(http.StatusOK, f)
	return nil
}

// saveEndpoint changes what the person changed, and nothing else. Where somebody else changed the endpoint meanwhile, the
// form is shown again with both changes, and says what the other one is.
func (c *call) saveEndpoint() error {
	var f *endpointForm
	var patch settings
	err := c.act(func() (step, error) {
		if err := c.needs(admin.Endpoints); err != nil {
			return step{}, err
		}
		e, err := c.madeEndpoint()
		if e == nil {
			return step{}, answered(err)
		}
		if f, err = c.emptyForm(e.Name); err != nil {
			return step{}, err
		}
		f.of(e)
		f.began(e.Made)
		f.Typed = c.r.PostForm
		f.Base, f.Revision = f.Typed.Get("base"), f.Typed.Get("revision")
		base, _ := readSettings([]byte(f.Base)) // nothing, if it was empty
		s := f.settings(c)
		patch = changes(base, s)
		if headers := f.headers(c); len(headers) > 0 {
			patch["headers"] = headers
		}
		if len(f.Problems) > 0 {
			return step{}, errForm
		}
		var changed admin.Endpoint
		if len(patch) > 0 {
			if err := c.sendIf(f.Revision, http.MethodPatch, escaped("/v1/endpoints/%s", e.Name), patch, &changed); err != nil {
				return step{}, err
			}
		}
		did := "changed"
		if slices.Contains(changed.Ended, "disabled") && changed.State == "active" {
			did = "changed.enabled"
		}
		return step{escaped("/endpoints/%s", e.Name), did}, nil
	})
	return c.formAgain(err, func(r *refusal) error {
		if r == errAnswered {
			return nil
		}
		if r.Status == http.StatusPreconditionFailed && f != nil {
			return c.joinChanges(f, patch)
		}
		return c.refusedForm(f, r)
	})
}

// errAnswered says that the answer is written.
var errAnswered = &refusal{Status: http.StatusConflict, Code: string(problem.EndpointInFile)}

// answered is an error of madeEndpoint, or that it answered itself.
func answered(err error) error {
	if err == nil {
		return errAnswered
	}
	return err
}

// joinChanges shows the form with the newer settings and the person's own changes of them.
func (c *call) joinChanges(f *endpointForm, patch settings) error {
	e, err := c.madeEndpoint()
	if e == nil {
		return err
	}
	base, _ := readSettings([]byte(f.Base))
	f.of(e)
	newer := f.began(e.Made)
	delete(patch, "headers") // they stay as they were typed
	theirs := changes(base, newer)
	for name, v := range theirs {
		change := otherChange{Name: name}
		_, change.Both = patch[name]
		if v != nil {
			text, _ := json.Marshal(newer[name]) // it was JSON
			change.Now = string(text)
		}
		f.Others = append(f.Others, change)
	}
	sorting.By(f.Others, func(a, b otherChange) int { return strings.Compare(a.Name, b.Name) })
	f.show(merged(newer, patch))
	c.showForm(http.StatusPreconditionFailed, f)
	return nil
}

// deleteForm is the data of the screen that asks before an endpoint is deleted.
type deleteForm struct {
	*admin.Endpoint
	Backlog int64
	Problem *refusal
}

func (c *call) askDelete() error { return c.showDelete(nil) }

func (c *call) showDelete(r *refusal) error {
	if err := c.needs(admin.Endpoints); err != nil {
		return err
	}
	e, err := c.madeEndpoint()
	if e == nil {
		return err
	}
	status := http.StatusOK
	if r != nil {
		status = r.Status
	}
	c.show(status, "endpoint-delete", c.t("delete.title", c.calledOf(e)), deleteForm{e, e.Deliveries.Pending + e.Deliveries.Held, r})
	return nil
}

func (c *call) deleteEndpoint() error {
	err := c.act(func() (step, error) {
		address := escaped("/v1/endpoints/%s", c.r.PathValue("name"))
		if c.r.PostForm.Get("force") != "" {
			address += "?force=true"
		}
		if err := c.sendIf(c.r.PostForm.Get("revision"), http.MethodDelete, address, nil, nil); err != nil {
			return step{}, err
		}
		return step{"/endpoints", "deleted"}, nil
	})
	return c.formAgain(err, c.showDelete)
}
