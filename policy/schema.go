package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"relay/config/eval"
	"relay/policy/rfc3339"
)

// Limits of schemas and of data that is checked. The library computes with big integers, so
// 1e999999999 would take hours.
const (
	maxPattern  = 1000 // bytes of a regular expression
	maxExponent = 400
	maxDigits   = 1000 // of a number as it is written
	maxPointer  = 256  // characters of a Mismatch's text
)

// Times of a schema: to compile it, and for each MiB of data that is checked, in addition to its
// budget.
const (
	compileBudget = 5 * time.Second
	dataTime      = 200 * time.Millisecond
)

// Schema is a JSON Schema: draft 4 to 2020-12, by its $schema, else 2020-12. Formats are checked.
// Regular expressions are Go's: linear time, no look-around. A $ref must point into the same
// text.
type Schema struct {
	text     json.RawMessage    // compact
	compiled *jsonschema.Schema // for Fields

	budget time.Duration // of a Check
	lane   *eval.Lane
	idle   sync.Pool // of *checker
}

// here is the URL of every schema, for the library.
const here = "relay:schema"

// dateTime checks the format date-time with the grammar of an event's time.
func dateTime(v any) error {
	text, ok := v.(string)
	if !ok {
		return nil
	}
	_, err := rfc3339.Parse([]byte(text))
	return err
}

// newSchema reads a schema. Its errors are for people.
func newSchema(text string, budget time.Duration, lane *eval.Lane) (*Schema, error) {
	doc, err := decodeJSON([]byte(text))
	switch {
	case err != nil && !strings.HasPrefix(strings.TrimSpace(text), "{"):
		return nil, errors.New(`it is not a JSON object: write file("…") to read one from a file, or jsonencode({ … })`)
	case err != nil:
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if m := unbounded(doc, nil); m != nil {
		return nil, errors.New(m.Error())
	}
	k, err := compileSchema(doc)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		return nil, fmt.Errorf("compact schema: %w", err)
	}
	schema := &Schema{text: compact.Bytes(), compiled: k.schema, budget: budget, lane: lane}
	schema.idle.Put(k)
	return schema, nil
}

// noLoader denies the library files and the network.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s: only references within the same schema are followed, put it under $defs", url)
}

// schemaError says without the library's words why a schema does not compile.
func schemaError(err error) error {
	if wrong, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if v, ok := errors.AsType[*jsonschema.ValidationError](wrong.Err); ok {
			return fmt.Errorf("it is no JSON Schema: %w", mismatch(v))
		}
	}
	if load, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return load.Err
	}
	return fmt.Errorf("it cannot be used: %w", err)
}

// decodeJSON reads one value, with its numbers as they are written.
func decodeJSON(text []byte) (any, error) {
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

// Text is the schema as compact JSON. It is shared: read only.
func (s *Schema) Text() json.RawMessage { return s.text }

// Mismatch says where data does not fit its schema. Of the data it contains only names of keys on
// the path.
type Mismatch struct {
	Pointer string // RFC 6901, "" for the data as a whole; cut after 256 characters
	Keyword string // of the schema, like "required"
	Detail  string // for people
	Code    string // CodeTooExpensive or CodeBusy if the data could not be checked, "" if it does not fit
}

func (m *Mismatch) Error() string {
	at := m.Pointer
	if at == "" {
		at = "the whole"
	}
	return at + " " + m.Detail
}

// Check returns nil if data, which is JSON, fits, else the first mismatch by path and keyword.
func (s *Schema) Check(data []byte) *Mismatch {
	v, err := decodeJSON(data)
	if err != nil {
		return &Mismatch{Detail: "is not JSON"}
	}
	if m := unbounded(v, nil); m != nil {
		return m
	}
	return s.compare(v, len(data))
}

// compare checks a decoded value of so many bytes, within the budget.
func (s *Schema) compare(v any, size int) (m *Mismatch) {
	k, ok := s.idle.Get().(*checker)
	if !ok {
		doc, err := decodeJSON(s.text)
		if err == nil {
			k, err = compileSchema(doc)
		}
		if err != nil {
			return &Mismatch{Detail: "cannot be compared"} // it was compiled at decoding
		}
	}
	k.left.Begin(s.budget+time.Duration(size)*dataTime>>20, s.lane)
	defer func() {
		k.left.End()
		if err := k.left.Err(); err != nil {
			if p := recover(); p != nil && p != any(errUncompared) {
				panic(p)
			}
			m = &Mismatch{Code: CostCode(err, ""), Detail: "cannot be compared with the schema: " + err.Error()}
		}
		s.idle.Put(k)
	}()
	err := k.schema.Validate(v)
	if err == nil {
		return nil
	}
	if v, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return mismatch(v)
	}
	return &Mismatch{Detail: "cannot be compared"}
}

// unbounded finds a number that would take too long to compute with.
func unbounded(v any, at []string) *Mismatch {
	switch v := v.(type) {
	case json.Number:
		_, exponent, _ := strings.Cut(strings.ToLower(string(v)), "e")
		n, err := strconv.Atoi(exponent)
		if len(v) > maxDigits || exponent != "" && (err != nil || n < -maxExponent || n > maxExponent) {
			return &Mismatch{Pointer: pointer(at), Keyword: "type", Detail: fmt.Sprintf("is a number of more than %d digits, or with an exponent beyond %d", maxDigits, maxExponent)}
		}
	case []any:
		for i, item := range v {
			if m := unbounded(item, append(at, strconv.Itoa(i))); m != nil {
				return m
			}
		}
	case map[string]any:
		for key, item := range v {
			if m := unbounded(item, append(at, key)); m != nil {
				return m
			}
		}
	}
	return nil
}

// mismatch picks one of the library's errors, deterministically.
func mismatch(e *jsonschema.ValidationError) *Mismatch {
	var first *jsonschema.ValidationError
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		whole := false // errors below are about one of several alternatives
		switch e.ErrorKind.(type) {
		case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.PropertyNames, *kind.Contains:
			whole = true
		}
		if len(e.Causes) > 0 && !whole {
			for _, cause := range e.Causes {
				walk(cause)
			}
			return
		}
		if first == nil || cmp.Or(slices.Compare(e.InstanceLocation, first.InstanceLocation), cmp.Compare(violated(e), violated(first))) < 0 {
			first = e
		}
	}
	walk(e)
	return &Mismatch{Pointer: pointer(first.InstanceLocation), Keyword: violated(first), Detail: detail(first)}
}

// violated is the part of the schema that an error is about.
func violated(e *jsonschema.ValidationError) string {
	if path := e.ErrorKind.KeywordPath(); len(path) > 0 {
		return path[0]
	}
	return "false" // the schema that nothing fits
}

// detail says what a keyword requires, from the schema and never from the value.
func detail(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return fmt.Sprintf("is of type %s, not %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Required:
		return "lacks " + strings.Join(slices.Sorted(slices.Values(k.Missing)), ", ")
	case *kind.AdditionalProperties:
		return "has a property that the schema does not allow"
	case *kind.Format:
		if k.Want == "regex" {
			return fmt.Sprintf("is no regular expression that can be used: at most %d bytes and %d instructions, in the syntax of Go's regexp, which has no look-around", maxPattern, eval.MaxProgram)
		}
		return "is not of the format " + k.Want
	case *kind.Enum:
		return "is none of the values that the schema lists"
	}
	return fmt.Sprintf("does not fit %q", violated(e))
}

// pointer writes the path to a value.
func pointer(path []string) string {
	var b strings.Builder
	for _, token := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
	}
	return fmt.Sprintf("%.*s", maxPointer, b.String())
}
