package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"relay/relay/admin"
)

// refusal is an answer of the API that is no success.
type refusal struct {
	Status      int
	Code        string
	Title       string
	Detail      string
	Field       string
	Pointer     string // into the data, of a schema
	Offset      *int   // of the wrong byte of the body; nil for none
	Own         bool   // Detail is of the page, in the language of the viewer; that of the API is English
	Diagnostics []string
	Again       string // address to ask again, "" for none
}

func (r *refusal) Error() string { return r.Code + ": " + r.Detail }

// refusalOf is an error as a refusal.
func (c *call) refusalOf(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{Status: http.StatusInternalServerError, Code: "internal_error", Detail: err.Error()}
}

// get reads a route of the API. Errors: *refusal.
func (c *call) get(path string, q url.Values, into any) error {
	return c.ask(http.MethodGet, path, q, nil, into)
}

// send calls a route that changes something, with a body in JSON; nil for none. Errors: *refusal.
func (c *call) send(method, path string, body, into any) error {
	return c.ask(method, path, nil, body, into)
}

func (c *call) ask(method, path string, q url.Values, body, into any) error {
	var text []byte
	if raw, is := body.(json.RawMessage); is {
		text = raw
	} else if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ask %s: %w", path, err)
		}
	}
	r, err := c.inner(method, path, q, text)
	if err != nil {
		return err
	}
	return c.do(r, into)
}

// do makes a request of the API, and reads its answer.
func (c *call) do(r *http.Request, into any) error {
	answer := &recorder{header: http.Header{}, under: c.w}
	c.p.API.ServeHTTP(answer, r)
	err := answer.read(r.URL.Path, into)
	if refused, is := errors.AsType[*refusal](err); is && !c.whole() {
		refused.forCustomer()
	}
	return err
}

// inner is a request of the API by who makes this one.
func (c *call) inner(method, path string, q url.Values, body []byte) (*http.Request, error) {
	u := url.URL{Path: path, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(admin.WithAccess(c.r.Context(), c.access), method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", path, err)
	}
	r.Host, r.RemoteAddr = c.r.Host, c.r.RemoteAddr
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// escaped is a path of the API with a name or id in it.
func escaped(format string, names ...any) string {
	for i, name := range names {
		names[i] = url.PathEscape(fmt.Sprint(name))
	}
	return fmt.Sprintf(format, names...)
}

// recorder keeps an answer of the API.
type recorder struct {
	under  http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

// Unwrap lets a route that takes long set the deadline of the page's answer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.under }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// read decodes a success into a value, and returns any other answer as *refusal.
func (r *recorder) read(path string, into any) error {
	if r.status >= 300 {
		var p struct {
			Code, Title, Detail, Field, Pointer string
			Diagnostics                         []string
			Offset                              *int
		}
		if err := json.Unmarshal(r.body.Bytes(), &p); err != nil {
			p.Detail = r.body.String()
		}
		return &refusal{Status: r.status, Code: p.Code, Title: p.Title, Detail: p.Detail, Field: p.Field, Pointer: p.Pointer, Offset: p.Offset, Diagnostics: p.Diagnostics}
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = r.body.Bytes()
		return nil
	}
	if err := json.Unmarshal(r.body.Bytes(), into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return nil
}
