package admin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
)

const (
	bulkBody = 64 << 10  // bytes of a body with a filter
	testBody = 300 << 10 // of one with the data of an event
)

// readBody reads a body of at most that many bytes.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return nil, refusal(problem.BodyTooLarge, "", "the body of this route has at most "+kibibytes(most))
	}
	if err != nil {
		return nil, refusal(problem.InvalidBody, "", "the body did not come whole: send it again")
	}
	return bytes.TrimSpace(body), nil
}

func kibibytes(n int64) string { return strconv.FormatInt(n>>10, 10) + " KiB" }

// readObject reads a body that is a JSON object with some of the given members, or empty.
func readObject(w http.ResponseWriter, r *http.Request, most int64, names ...string) (map[string]jsontext.Value, error) {
	body, err := readBody(w, r, most)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	members := map[string]jsontext.Value{}
	broken := refusal(problem.InvalidJSON, "", "the body is one JSON object in UTF-8 with unique names: "+strings.Join(names, ", "))
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, broken
	}
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, broken
		}
		name := t.String()
		v, err := d.ReadValue()
		if err != nil {
			return nil, broken
		}
		if !slices.Contains(names, name) {
			return nil, refusal(problem.UnknownParameter, name, "there is no member "+shorten(name)+" here. There are "+strings.Join(names, ", "))
		}
		members[name] = v.Clone()
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, broken
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, broken
	}
	return members, nil
}

// textOf is a member that is a string of at most 256 bytes; "" if it is absent.
func textOf(members map[string]jsontext.Value, name string) (string, error) {
	return longTextOf(members, name, 256)
}

// longTextOf is a member that is a string of at most that many bytes; "" if it is absent.
func longTextOf(members map[string]jsontext.Value, name string, most int) (string, error) {
	v, ok := members[name]
	if !ok {
		return "", nil
	}
	text, err := jsontext.AppendUnquote(nil, v)
	if err != nil || v.Kind() != '"' || len(text) == 0 || len(text) > most {
		return "", refusal(problem.InvalidParameter, name, fmt.Sprintf("%s is a string of 1 to %d bytes; leave it out for none", name, most))
	}
	return string(text), nil
}

// boolOf is a member that is true or false; false if it is absent.
func boolOf(members map[string]jsontext.Value, name string) (bool, error) {
	switch v := members[name]; v.Kind() {
	case 't':
		return true, nil
	case 'f', jsontext.KindInvalid:
		return false, nil
	}
	return false, refusal(problem.InvalidParameter, name, name+" is true or false")
}
