package client

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relay/config"
	"relay/internal/testkit"
)

// place is a working directory with a state folder, and Relays that run.
type place struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, dir: testkit.Dir(t)}
	p.env = map[string]string{"STATE_DIRECTORY": filepath.Join(p.dir, "state")}
	t.Chdir(p.dir)
	return p
}

func (p *place) finder(configs ...string) Finder {
	return Finder{
		Env:     func(name string) (string, bool) { v, ok := p.env[name]; return v, ok },
		Configs: configs,
		Warn:    func(error, string) {},
	}
}

func (p *place) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// runs publishes the run file of a Relay in folders: it was started with a file, has its
// outbox in the first of them, and its admin listener at an address of its own.
func (p *place) runs(address, file string, folders ...string) *Published {
	p.t.Helper()
	r := Running{PID: 1, Config: []string{filepath.Join(p.dir, file)}, Outbox: filepath.Join(p.dir, folders[0]), Admin: []string{address}, Ingest: []string{address}}
	var first *Published
	for _, f := range folders {
		published, err := r.Publish(filepath.Join(p.dir, f))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { published.Close() })
		if first == nil {
			first = published
		}
	}
	return first
}

const (
	inBox   = "outbox \"sqlite\" {\n  path = \"box\"\n}\nadmin {\n  http = \"127.0.0.1:1\"\n}\n"
	inState = "admin {\n  http = \"127.0.0.1:1\"\n}\n"
	inRedis = "outbox \"redis\" {}\nadmin {\n  http = \"127.0.0.1:1\"\n}\n"
)

// A verb talks to the Relay that is meant, and to no other one that runs.
func TestFind(t *testing.T) {
	const runs, file = "tcp:127.0.0.1:2", "tcp:127.0.0.1:1"
	for name, test := range map[string]struct {
		files   map[string]string
		named   string // by --config
		started string // what the Relay that runs was started with
		folders []string
		want    string
	}{
		"no file, in the state folder":               {nil, "", "prod.hcl", []string{"elsewhere", "state"}, runs},
		"no file, and its outbox is elsewhere":       {nil, "", "prod.hcl", []string{"elsewhere"}, "tcp:127.0.0.1:7071"},
		"the file that was found":                    {map[string]string{"relay.hcl": inBox}, "", "relay.hcl", []string{"box"}, runs},
		"the outbox of the file that was found":      {map[string]string{"relay.hcl": inBox}, "", "prod.hcl", []string{"box"}, runs},
		"its outbox by default":                      {map[string]string{"relay.hcl": inState}, "", "prod.hcl", []string{"elsewhere", "state"}, runs},
		"another Relay's beside a file that is good": {map[string]string{"relay.hcl": inBox}, "", "prod.hcl", []string{"state"}, file},
		"the outbox moved in the file":               {map[string]string{"relay.hcl": inBox}, "", "relay.hcl", []string{"old", "state"}, runs},
		"broken":                                     {map[string]string{"relay.hcl": inBox + "}"}, "", "relay.hcl", []string{"box"}, runs},
		"broken, named":                              {map[string]string{"relay.hcl": "}"}, "relay.hcl", "relay.hcl", []string{"elsewhere", "state"}, runs},
		"broken, named, another's":                   {map[string]string{"b.hcl": inState + "}"}, "b.hcl", "prod.hcl", []string{"state"}, file},
		"gone, named":                                {nil, "relay.hcl", "relay.hcl", []string{"box", "state"}, runs},
		"named, the same outbox":                     {map[string]string{"copy.hcl": inBox}, "copy.hcl", "prod.hcl", []string{"box"}, runs},
		"named, the default outbox is another's":     {map[string]string{"b.hcl": inState}, "b.hcl", "prod.hcl", []string{"elsewhere", "state"}, file},
		"a folder, named":                            {map[string]string{"relay.hcl": inBox}, ".", "relay.hcl", []string{"box"}, runs},
		"redis":                                      {map[string]string{"relay.hcl": inRedis}, "", "relay.hcl", []string{"state"}, runs},
		"redis, named":                               {map[string]string{"relay.hcl": inRedis}, "relay.hcl", "relay.hcl", []string{"state"}, runs},
		"redis, named, another's":                    {map[string]string{"b.hcl": inRedis}, "b.hcl", "prod.hcl", []string{"state"}, file},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			for f, text := range test.files {
				p.write(f, text)
			}
			p.runs("http://127.0.0.1:2", test.started, test.folders...)
			var named []string
			if test.named != "" {
				named = []string{test.named}
			}
			for from, f := range map[string]Finder{"--config": p.finder(named...), "$RELAY_CONFIG": p.finder()} {
				p.env["RELAY_CONFIG"] = ""
				if from == "$RELAY_CONFIG" {
					p.env["RELAY_CONFIG"] = test.named
				}
				target, err := f.Admin("")
				if err != nil || target.String() != test.want {
					t.Errorf("%s: %s, %v, want %s", from, target, err, test.want)
				}
			}
		})
	}
}

// What is given comes first, then the environment, then the run file.
func TestFindGiven(t *testing.T) {
	p := newPlace(t)
	p.write("relay.hcl", "}")
	p.runs("unix:/run.sock", "relay.hcl", "state")
	admin := func(given string) string {
		target, err := p.finder().Admin(given)
		if err != nil {
			t.Fatal(err)
		}
		return target.String()
	}
	if got := admin(""); got != "unix:/run.sock" {
		t.Error(got)
	}
	p.env["RELAY_ADMIN"] = "http://127.0.0.1:3"
	if got := admin(""); got != "tcp:127.0.0.1:3" {
		t.Error(got)
	}
	if got := admin("unix:/given.sock"); got != "unix:/given.sock" {
		t.Error(got)
	}
	if target, err := p.finder().Ingest("", ""); err != nil || target.String() != "unix:/run.sock" {
		t.Error(target, err)
	}
	// A file that is not there is a mistake only when nothing else tells.
	if _, err := p.finder("none.hcl").Admin(""); err != nil {
		t.Error(err)
	}
	p.env["RELAY_ADMIN"] = ""
	if _, err := p.finder("none.hcl").Admin(""); !errors.As(err, new(UsageError)) || !strings.Contains(err.Error(), "one runs with --config "+filepath.Join(p.dir, "relay.hcl")) {
		t.Error(err)
	}
}

// What is wrong with a file is told when it is all there is.
func TestFindWarns(t *testing.T) {
	p := newPlace(t)
	p.write("relay.hcl", inBox+"}")
	f := p.finder()
	var told []string
	f.Warn = func(problems error, asking string) { told = append(told, problems.Error()+"; "+asking) }
	if target, err := f.Admin(""); err != nil || target.String() != "tcp:127.0.0.1:1" {
		t.Error(target, err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "relay.hcl:7,1") || !strings.HasSuffix(told[0], "; tcp:127.0.0.1:1") {
		t.Error(told)
	}
	p.runs("unix:/run.sock", "relay.hcl", "box")
	if target, err := f.Admin(""); err != nil || target.String() != "unix:/run.sock" || len(told) != 1 {
		t.Error(target, err, told)
	}
}

// A socket whose file was removed is told from one where nobody listens.
func TestSocketIsGone(t *testing.T) {
	p := newPlace(t)
	socket := filepath.Join(p.dir, "relay.sock")
	p.runs("unix:"+socket, "relay.hcl", "state")
	target, err := p.finder().Ingest("", "")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		_, _, err := target.Do(Request{Method: "POST", Path: "/v1/events"})
		if err == nil {
			t.Fatal("somebody answers")
		}
		return err.Error()
	}
	const gone = "is gone, although process 1 runs"
	if got := ask(); !strings.Contains(got, "the file of the socket "+socket+" "+gone) || strings.Contains(got, "listens there") {
		t.Error(got)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if got := ask(); strings.Contains(got, gone) || !strings.Contains(got, "it may be starting or stopping") {
		t.Error(got)
	}
	// Nobody is known to run.
	if target, err = p.finder().Ingest("unix:"+socket+".none", ""); err != nil {
		t.Fatal(err)
	}
	if got := ask(); strings.Contains(got, gone) {
		t.Error(got)
	}
}

func TestTokenOf(t *testing.T) {
	listeners := []config.HTTP{
		{Addr: "127.0.0.1:1"},
		{Addr: "127.0.0.1:2", Token: config.NewSecret("two")},
		{Addr: "0.0.0.0:3", Token: config.NewSecret("three")},
		{Addr: "10.0.0.1:4", Token: config.NewSecret("four")},
	}
	for address, want := range map[string]string{
		"127.0.0.1:2":          "two",
		"localhost:3":          "three",
		"relay.example.com:3":  "three",
		"relay.example.com:4":  "four",
		"127.0.0.1:8080":       "two", // a port that is forwarded
		"[::1]:8080":           "two",
		"0.0.0.0:8080":         "two",
		"127.0.0.1:1":          "two",
		"relay.example.com:2":  "", // that listener has loopback only
		"relay.example.com:80": "",
		"/run/relay.sock":      "",
	} {
		if got := tokenOf(address, "", listeners); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
		if got := tokenOf(address, "given", listeners); got != "given" {
			t.Errorf("%s: %q, want the one that was given", address, got)
		}
	}
}

func TestParseAddr(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/a/b.sock":          "unix:/a/b.sock",
		"unix:b.sock":             "unix:b.sock",
		"http://127.0.0.1:7070":   "tcp:127.0.0.1:7070",
		"http://127.0.0.1:7070/":  "tcp:127.0.0.1:7070",
		"http://relay":            "tcp:relay:80",
		"http://[::1]:7070":       "tcp:[::1]:7070",
		"127.0.0.1:7070":          "tcp:127.0.0.1:7070",
		"[::1]:7070":              "tcp:[::1]:7070",
		"localhost:7070":          "tcp:localhost:7070",
		"http://[fe80::1%eth0]:1": "tcp:[fe80::1%eth0]:1",
		"http://:7070":            "tcp::7070",
		"unix:1":                  "unix:1",
		"unix:":                   "",
		"":                        "",
		"relay":                   "",
		"/a/b.sock":               "",
		"https://relay":           "",
		"ftp://relay":             "",
		"http://":                 "",
		"http://relay/v1/events":  "",
		"http://127.0.0.1:7070:1": "",
	} {
		a, err := ParseAddr(text)
		if (err == nil) != (want != "") || err == nil && a.String() != want {
			t.Errorf("%q: %s, %v, want %s", text, a, err, want)
		}
	}
}
