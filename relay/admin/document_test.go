package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relay/ingest/problem"
	"relay/internal/packed"
	"relay/internal/testkit/golden"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
	"relay/relay/query"
	"relay/relay/registry"
)

// The document is what the table of routes and the types say.
func TestDocumentIsGenerated(t *testing.T) {
	fresh := newDocumenter(t).document(everyRoute())
	const file = "openapi.json"
	written, err := os.ReadFile(file)
	if err == nil && bytes.Equal(fresh, written) && bytes.Equal(fresh, packed.Text(document)) {
		return
	}
	if !golden.Update() {
		t.Fatal("openapi.json, or what is packed of it, is not what the routes and types say: run make docs")
	}
	if err := os.WriteFile(file, fresh, 0o644); err != nil {
		t.Fatal(err)
	}
	golden.Pack(t, file+".gz", fresh)
}

// written keeps what was written last.
type written struct {
	http.ResponseWriter
	text []byte
}

func (w *written) Write(b []byte) (int, error) {
	w.text = b
	return len(b), nil
}

// The document is unpacked once, however often it is read.
func TestDocumentIsUnpackedOnce(t *testing.T) {
	h := New(Options{Outbox: box{}, Version: "v7"})
	var first *byte
	for range 2 {
		w := &written{ResponseWriter: httptest.NewRecorder()}
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
		if !bytes.Contains(w.text, []byte(`"version": "v7"`)) || first != nil && first != &w.text[0] {
			t.Fatalf("it is made anew, or is not the document: %d bytes", len(w.text))
		}
		first = &w.text[0]
	}
}

// everyRoute is the table with all parts there.
func everyRoute() []route {
	var o Options
	v := reflect.ValueOf(&o).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Func {
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value { return nil }))
		}
	}
	o.Registry = (*registry.Registry)(nil)
	m := outboxtest.NewMem(outboxtest.MemOptions{})
	o.Metrics, o.Records, o.Edits, o.Jobs = http.NotFoundHandler(), m, m, jobs.New(jobs.Options{Outbox: m})
	return newAPI(o).table()
}

// object is a JSON object.
type object = map[string]any

// documenter makes the document. Schemas of named types are components.
type documenter struct {
	t        *testing.T
	schemas  object
	comments map[string]map[string]string // by directory, then by "Type" and "Type.Field"
}

func newDocumenter(t *testing.T) *documenter {
	return &documenter{t: t, schemas: object{}, comments: map[string]map[string]string{}}
}

func (d *documenter) document(routes []route) []byte {
	paths := object{}
	for _, r := range routes {
		item, _ := paths[r.path].(object)
		if item == nil {
			item = object{}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = d.operation(&r)
	}
	d.schema(reflect.TypeFor[problem.Problem]())
	all := object{
		"openapi": "3.1.0",
		"info": object{"title": "Relay's admin API", "version": "0",
			"description": "Every operation of a running Relay. The verbs of the command line are clients of it. Times are RFC 3339 in UTC, durations in milliseconds. New members may come: ignore unknown ones."},
		"servers":  []any{object{"url": "http://127.0.0.1:7071", "description": "admin.http of the file; a Unix socket has the same routes"}},
		"security": []any{object{}, object{"token": []any{}}},
		"paths":    paths,
		"components": object{
			"schemas":         d.schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "admin.token of the file; needed where the file has one"}},
		},
	}
	text, err := json.MarshalIndent(all, "", "")
	if err != nil {
		d.t.Fatal(err)
	}
	return append(text, '\n')
}

var inPath = regexp.MustCompile(`{(\w+)}`)

func (d *documenter) operation(r *route) object {
	var params []any
	for _, m := range inPath.FindAllStringSubmatch(r.path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range query.For(r.filter) {
		params = append(params, filterParam(p))
	}
	for _, p := range r.params {
		params = append(params, object{"name": p.name, "in": "query", "description": p.about, "schema": object{"type": "string"}, "example": p.example})
	}
	status := r.status
	if status == 0 {
		status = http.StatusOK
	}
	responses := object{strconv.Itoa(status): d.response(r, r.answer, http.StatusText(status))}
	for status, answer := range r.others {
		responses[strconv.Itoa(status)] = d.response(r, answer, http.StatusText(status))
	}
	codes := slices.Concat(r.codes, commonCodes())
	slices.Sort(codes)
	responses["default"] = object{
		"description": "Refused",
		"content":     object{problem.ContentType: object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
		"x-codes":     codes,
	}
	op := object{"operationId": r.id, "summary": r.summary, "responses": responses}
	if r.about != "" {
		op["description"] = r.about
	}
	if r.verb != "" {
		op["x-verb"] = r.verb
	}
	if params != nil {
		op["parameters"] = params
	}
	if body := d.body(r); body != nil {
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": body}}}
	}
	return op
}

func (d *documenter) response(r *route, answer any, description string) object {
	out := object{"description": description}
	if answer == nil {
		return out
	}
	media := r.media
	if media == "" {
		media = "application/json"
	}
	content := object{"schema": d.schema(reflect.TypeOf(answer))}
	if r.example != "" {
		content["example"] = r.example
	}
	out["content"] = object{media: content}
	return out
}

// body is the schema of the request's body, nil for none.
func (d *documenter) body(r *route) any {
	var own any
	if r.body != nil {
		own = d.schema(reflect.TypeOf(r.body))
	}
	if !r.filters {
		return own
	}
	if own == nil {
		return filterBody()
	}
	return object{"allOf": []any{filterBody(), own}}
}

func filterParam(p query.Param) object {
	schema := object{"type": "string"}
	if p.Values != nil {
		schema["enum"] = p.Values
	}
	if p.Many {
		schema = object{"type": "array", "items": schema}
	}
	out := object{"name": p.Shown(), "in": "query", "description": p.About, "schema": schema}
	if p.Example != "" && !p.Many {
		out["example"] = p.Example
	}
	if p.Many {
		out["example"] = []any{p.Example}
	}
	return out
}

// filterBody is the schema of a filter as a body.
func filterBody() object {
	properties, patterns := object{}, object{}
	for _, p := range query.For(query.Bulk) {
		one := object{"type": []any{"string", "number", "boolean"}}
		if p.Values != nil {
			one = object{"enum": p.Values}
			if slices.Contains(p.Values, "true") {
				one = object{"type": []any{"string", "boolean"}}
			}
		}
		schema := one
		if p.Many {
			schema = object{"anyOf": []any{one, object{"type": "array", "items": one, "minItems": 1}}}
		}
		schema["description"] = p.About
		if strings.HasSuffix(p.Name, ".") {
			patterns["^"+regexp.QuoteMeta(p.Name)] = schema
			continue
		}
		properties[p.Name] = schema
	}
	return object{"type": "object", "properties": properties, "patternProperties": patterns}
}

// schema is that of a type's JSON.
func (d *documenter) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any]():
		return object{}
	}
	if special, ok := specialSchemas()[t]; ok {
		return special
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint16, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		return d.component(t)
	}
	d.t.Fatalf("no schema for %v", t)
	return nil
}

// component is a reference to the schema of a struct.
func (d *documenter) component(t reflect.Type) object {
	name := t.Name()
	if name == "" {
		return d.structure(t)
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	if pkg := filepath.Base(t.PkgPath()); pkg != "admin" && pkg != "problem" {
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if d.schemas[name] == nil {
		d.schemas[name] = object{} // for types that have themselves as parts
		d.schemas[name] = d.structure(t)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (d *documenter) structure(t reflect.Type) object {
	properties := object{}
	required := []string{}
	d.fields(t, properties, &required)
	slices.Sort(required)
	out := object{"type": "object", "properties": properties, "required": required}
	if about := d.comment(t, t.Name()); about != "" {
		out["description"] = about
	}
	return out
}

func (d *documenter) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && name == "":
			d.fields(f.Type, properties, required)
			continue
		case name == "":
			d.t.Errorf("%v.%s has no name in JSON", t, f.Name)
		}
		schema := d.schema(f.Type)
		optional := strings.Contains(options, "omit")
		if f.Type.Kind() == reflect.Pointer && !optional {
			schema = object{"anyOf": []any{schema, object{"type": "null"}}}
		}
		if about := d.comment(t, t.Name()+"."+f.Name); about != "" {
			schema["description"] = about
		}
		if f.Tag.Get(boundTag) == "-" {
			about, _ := schema["description"].(string)
			schema["description"] = strings.TrimPrefix(about+"; empty or left out for a token that is bound to tenants or endpoints", "; ")
		}
		properties[name] = schema
		if !optional {
			*required = append(*required, name)
		}
	}
}

// comment is that of a type or of a field in its source.
func (d *documenter) comment(t reflect.Type, name string) string {
	if t.PkgPath() == "" || strings.HasPrefix(name, ".") {
		return ""
	}
	dir := filepath.Join("..", "..", strings.TrimPrefix(t.PkgPath(), "relay/"))
	if d.comments[dir] == nil {
		d.comments[dir] = d.read(dir)
	}
	return d.comments[dir][name]
}

func (d *documenter) read(dir string) map[string]string {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		d.t.Fatalf("no source in %s: %v", dir, err)
	}
	all := map[string]string{}
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, decl := range f.Decls {
			if g, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok {
						note(all, s, g)
					}
				}
			}
		}
	}
	return all
}

// note notes the comments of a type and of its fields.
func note(all map[string]string, s *ast.TypeSpec, g *ast.GenDecl) {
	all[s.Name.Name] = flat(g.Doc) + flat(s.Doc)
	st, ok := s.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range st.Fields.List {
		text := strings.TrimSpace(flat(f.Doc) + " " + flat(f.Comment))
		for _, name := range f.Names {
			all[s.Name.Name+"."+name.Name] = text
		}
	}
}

func flat(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// Ids are unique, paths have no parameter twice, and every verb and code exists.
func TestTableOfRoutes(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range everyRoute() {
		if r.id == "" || seen[r.id] || seen[r.method+" "+r.path] {
			t.Errorf("%s %s: id %q is missing or stands twice", r.method, r.path, r.id)
		}
		seen[r.id], seen[r.method+" "+r.path] = true, true
		if r.summary == "" || strings.HasSuffix(r.summary, ".") || r.handle == nil {
			t.Errorf("%s: not whole", r.id)
		}
		if r.verb != "" && !strings.HasPrefix(r.verb, "relay ") {
			t.Errorf("%s: verb %q", r.id, r.verb)
		}
		for _, c := range slices.Concat(r.codes, commonCodes()) {
			if c.About().Status == 0 {
				t.Errorf("%s: there is no code %q", r.id, c)
			}
		}
		for status := range maps.Keys(r.others) {
			if status == cmp.Or(r.status, http.StatusOK) {
				t.Errorf("%s: %d stands twice", r.id, status)
			}
		}
		if r.media == "" && r.method != "DELETE" && r.answer == nil {
			t.Errorf("%s answers nothing", r.id)
		}
	}
}

// specialSchemas are those of types that write their JSON themselves.
func specialSchemas() map[reflect.Type]object {
	return map[reflect.Type]object{
		reflect.TypeFor[Total](): {"anyOf": []any{
			object{"type": "integer"},
			object{"type": "object", "properties": object{"at_least": object{"type": "integer"}}, "required": []string{"at_least"}},
		}},
	}
}

// What is at no route is refused like all else.
func TestUnrouted(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		code, allow  string
	}{
		{"GET", "/", 404, "not_found", ""},
		{"GET", "/v1/nothing", 404, "not_found", ""},
		{"GET", "/v1/endpoints/a/pause", 405, "method_not_allowed", "POST"},
		{"PUT", "/v1/endpoints", 405, "method_not_allowed", "GET, HEAD"},
	} {
		w := get(Options{Outbox: box{}}, c.method, c.path)
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != c.status || string(p.Code) != c.code || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %q %s (%v)", c.method, c.path, w.Code, w.Header().Get("Allow"), w.Body, err)
		}
	}
	if w := get(Options{Outbox: box{}}, "GET", "/v1//endpoints"); w.Code != http.StatusMovedPermanently && w.Code != http.StatusTemporaryRedirect {
		t.Errorf("a path with two slashes: %d", w.Code)
	}
}
