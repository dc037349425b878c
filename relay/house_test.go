package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says who may import whom: data flows ingest → outbox → relay/deliver →
// endpoint, and everything else hangs below. Tests may import what they like.
var arrows = map[string][]string{
	"internal/testkit":             {},
	"internal/packed":              {},
	"internal/testkit/golden":      {"internal/packed"},
	"internal/testkit/wallclock":   {},
	"internal/testkit/pebble":      {"internal/testkit"},
	"config":                       {"config/eval", "internal/access", "internal/seal", "internal/sorting"},
	"config/eval":                  {},
	"outbox":                       {"outbox/sketch"},
	"outbox/sketch":                {},
	"outbox/brief":                 {},
	"outbox/clock":                 {},
	"outbox/outboxtest":            {"outbox", "outbox/clock", "outbox/sketch"},
	"internal/access":              {},
	"internal/seal":                {},
	"internal/sorting":             {},
	"internal/throttle":            {},
	"internal/trace":               {"internal/throttle"},
	"internal/trace/tracetest":     {},
	"outbox/sqlite":                {"internal/access", "internal/sorting", "outbox", "outbox/brief", "outbox/clock", "outbox/sketch"},
	"outbox/redisstream":           {"internal/packed", "internal/sorting", "internal/throttle", "outbox", "outbox/brief", "outbox/sketch"},
	"outbox/redisstream/redistest": {"internal/testkit"},
	"outbox/spool":                 {"outbox", "outbox/redisstream", "outbox/sqlite"},
	"policy":                       {"config", "config/eval", "internal/sorting", "outbox", "policy/expr", "policy/rawjson", "policy/rfc3339", "policy/sign"},
	"policy/expr":                  {"config", "config/eval", "policy/rawjson", "policy/rfc3339"},
	"policy/rawjson":               {},
	"policy/rfc3339":               {},
	"ingest":                       {"ingest/listen", "ingest/problem", "internal/throttle", "internal/trace", "outbox", "policy", "policy/rawjson", "policy/rfc3339"},
	"ingest/listen":                {"ingest/problem", "internal/access"},
	"ingest/problem":               {},
	"policy/sign":                  {"policy/rfc3339"},
	"relay/sink":                   {"policy/sign"},
	"relay/gate":                   {"outbox", "policy"},
	"relay/post":                   {"outbox", "policy", "policy/sign"},
	"relay/deliver":                {"internal/throttle", "internal/trace", "outbox", "policy", "policy/rawjson", "relay/gate", "policy/sign", "relay/post"},
	"relay/admin":                  {"config", "ingest/listen", "ingest/problem", "internal/packed", "internal/sorting", "outbox", "outbox/sketch", "policy", "relay/alert", "relay/audit", "relay/backlog", "relay/deliver", "relay/explain", "relay/gate", "relay/jobs", "relay/query", "relay/registry"},
	"relay/audit":                  {"outbox"},
	"relay/jobs":                   {"internal/sorting", "outbox", "relay/audit", "relay/query"},
	"relay/query":                  {"config", "ingest/problem", "outbox", "policy", "policy/rfc3339"},
	"relay/bench":                  {},
	"relay/certstore":              {"internal/seal"},
	"relay/front":                  {"config", "ingest", "ingest/listen", "ingest/problem", "internal/sorting", "internal/throttle", "policy/sign"},
	"relay/metrics":                {"outbox", "relay/deliver"},
	"relay/deliver/delivertest":    {"policy/sign"},
	"relay/child":                  {},
	"relay/page/chart":             {},
	"relay/page/markup":            {"internal/sorting"},
	"relay/page/show":              {},
	"relay/systemd":                {},
	"relay/client":                 {"config", "ingest/problem", "internal/access"},
	"relay/doctor":                 {"internal/sorting", "policy", "relay/admin", "relay/post"},
	"relay/alert":                  {"internal/sorting", "outbox", "outbox/sketch", "policy", "relay/deliver"},
	"relay/backlog":                {"internal/sorting", "outbox"},
	"relay/registry":               {"config", "internal/seal", "outbox", "policy", "policy/sign"},
	"relay/explain":                {"config", "outbox", "policy", "relay/deliver", "relay/post"},
	"relay/page":                   {"config", "ingest/problem", "internal/packed", "internal/sorting", "policy", "relay/admin", "relay/alert", "relay/explain", "relay/jobs", "relay/page/chart", "relay/page/markup", "relay/page/show", "relay/query", "relay/registry"},
	"relay/app":                    {"config", "ingest", "ingest/listen", "ingest/problem", "internal/access", "internal/seal", "internal/throttle", "internal/trace", "outbox", "outbox/redisstream", "outbox/spool", "outbox/sqlite", "policy", "relay/admin", "relay/alert", "relay/backlog", "relay/certstore", "relay/deliver", "relay/explain", "relay/front", "relay/jobs", "relay/metrics", "relay/page", "relay/query", "relay/registry"},
	"relay":                        {"config", "ingest", "ingest/listen", "ingest/problem", "internal/sorting", "outbox", "policy", "policy/sign", "relay/admin", "relay/app", "relay/bench", "relay/child", "relay/client", "relay/deliver", "relay/doctor", "relay/explain", "relay/query", "relay/registry", "relay/sink", "relay/systemd"},
}

// homes says which files may import a module that the house keeps in one place.
var homes = map[string]*regexp.Regexp{
	"github.com/ncruces/go-sqlite3":            regexp.MustCompile(`^outbox/sqlite/`),
	"github.com/hashicorp/hcl/v2":              regexp.MustCompile(`^(config|policy/expr)/|^policy/signature\.go$`),
	"github.com/santhosh-tekuri/jsonschema/v6": regexp.MustCompile(`^policy/(schema|schema_cost|fields)\.go$`),
	"github.com/zclconf/go-cty":                regexp.MustCompile(`^(config|policy/expr)/|^policy/signature\.go$`),
	"github.com/redis/go-redis/v9":             regexp.MustCompile(`^outbox/redisstream/|^relay/certstore/`),
	"github.com/caddyserver/certmagic":         regexp.MustCompile(`^relay/(certstore|front)/`),
	"github.com/mholt/acmez/v3":                regexp.MustCompile(`^relay/front/`),
	"go.uber.org/zap":                          regexp.MustCompile(`^relay/front/log\.go$`),
	"github.com/valyala/fasthttp":              regexp.MustCompile(`^relay/(post/http1|bench/(load|receiver))\.go$`),
	"github.com/coreos/go-systemd/v22":         regexp.MustCompile(`^relay/systemd/`),
	"github.com/andybalholm/brotli":            regexp.MustCompile(`^relay/front/events\.go$`),
	"github.com/fsnotify/fsnotify":             regexp.MustCompile(`^relay/app/watch\.go$`),
	"golang.org/x/crypto":                      regexp.MustCompile(`^internal/seal/`),
	"golang.org/x/time":                        regexp.MustCompile(`^relay/gate/`),
	"google.golang.org/protobuf":               regexp.MustCompile(`^internal/trace/`),
	"go.opentelemetry.io/proto":                regexp.MustCompile(`^internal/trace/tracetest/`),
	"github.com/prometheus":                    regexp.MustCompile(`^relay/metrics/`),
	"github.com/spf13/cobra":                   regexp.MustCompile(`^relay/[a-z_]+\.go$`),
	"testing":                                  regexp.MustCompile(`(test|testkit|golden|wallclock|pebble)/[a-z_]+\.go$`),
}

// logKeys are the only keys of a log line, so that one query serves every part.
var logKeys = []string{
	"component", "event_id", "delivery_id", "endpoint", "attempt", "outcome", "state", "status",
	"took", "next_at", "code", "error", "repeats", "events",
	"by", "version", "next", "outbox", "durability", "endpoints", "ingest", "admin", "pending", "held", "unfinished", "removed",
	"generation", "hash", "lines", "step", "job", "done", "skipped",
	"front", "host", "upstream", "method", "path", "protocol", "client", "bytes",
}

// sources parses every Go file of the product, tests aside.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "examples") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		rel, _ := filepath.Rel(root, path)
		files[filepath.ToSlash(rel)] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d files: is the test looking in the right place?", len(files))
	}
	return files
}

func TestImportsFollowTheArrows(t *testing.T) {
	for name, f := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(name))
		allowed, known := arrows[pkg]
		if !known {
			t.Errorf("package %s is not on the map of arrows: add it", pkg)
		}
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if ours, ok := strings.CutPrefix(path, "relay/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, against the arrows", name, ours)
			}
			for module, home := range homes {
				if (path == module || strings.HasPrefix(path, module+"/")) && !home.MatchString(name) {
					t.Errorf("%s imports %s, which belongs in %s", name, path, home)
				}
			}
		}
	}
}

// What may be asked of a value beyond its type has a name where it is asked, so that both sides can be found.
func TestAssertedInterfacesHaveNames(t *testing.T) {
	asserted := 0
	for name, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			if a, is := n.(*ast.TypeAssertExpr); is {
				asserted++
				if of, is := a.Type.(*ast.InterfaceType); is && len(of.Methods.List) > 0 {
					t.Errorf("%s asserts an interface without a name", name)
				}
			}
			return true
		})
	}
	if asserted < 50 {
		t.Errorf("found %d assertions: the test no longer sees them", asserted)
	}
}

// An HTTP library of either leg can be changed in one file.
func TestHTTPLibraryHasOneHome(t *testing.T) {
	libraries := map[string]map[string]string{
		"ingest":        {`"net/http`: "ingest/listen"},
		"relay/post":    {`"net/http`: "relay/post/http2.go", `"github.com/valyala/fasthttp`: "relay/post/http1.go"},
		"relay/deliver": {`"net/http`: "relay/post/http2.go", `"github.com/valyala/fasthttp`: "relay/post/http1.go"},
	}
	for name, f := range sources(t) {
		for library, home := range libraries[filepath.ToSlash(filepath.Dir(name))] {
			for _, i := range f.Imports {
				if name != home && strings.HasPrefix(i.Path.Value, library) {
					t.Errorf("%s imports %s, which belongs in %s", name, i.Path.Value, home)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	docs := map[string]bool{}
	for name, f := range sources(t) {
		docs[filepath.Dir(name)] = docs[filepath.Dir(name)] || f.Doc != nil
	}
	for pkg, ok := range docs {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// A newcomer finds each package in CONTRIBUTING's table.
func TestEveryPackageIsOnTheMap(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z/0-9]+)` \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = true
	}
	for name := range sources(t) {
		if pkg := filepath.ToSlash(filepath.Dir(name)); !rows[pkg] {
			t.Errorf("package %s has no row in CONTRIBUTING.md: say in one line what it is", pkg)
			rows[pkg] = true
		}
	}
	for pkg := range arrows {
		if !rows[pkg] {
			t.Errorf("package %s has no row in CONTRIBUTING.md", pkg)
		}
	}
}

func TestLogKeys(t *testing.T) {
	setters := []string{"Str", "Strs", "Int", "Int64", "Uint64", "Dur", "Time", "Bool", "Any", "AnErr", "Stringer"}
	found := 0
	for name, f := range sources(t) {
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return strings.Contains(i.Path.Value, "zerolog") }) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(setters, sel.Sel.Name) {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				found++
				if key, _ := strconv.Unquote(lit.Value); !slices.Contains(logKeys, key) {
					t.Errorf("%s logs the key %q, which is not on the list", name, key)
				}
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("found only %d log keys: the test no longer sees them", found)
	}
}
