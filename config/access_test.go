package config

import (
	"strings"
	"testing"
)

func TestAccess(t *testing.T) {
	env := environ{"WHOLE": "canary-token-of-admin", "ONE": "canary-token-number-1", "TWO": "canary-token-number-2", "SHORT": "canary"}
	block := func(name, text string) string { return "  access \"" + name + "\" {\n    " + text + "\n  }\n" }
	for name, c := range map[string]struct{ text, want string }{
		"good":                   {block("a", `token = env("ONE")`+"\n    may = [\"read\"]") + block("b", `token = env("TWO")`+"\n    may = [\"read\", \"operate\"]\n    tenants = [\"acme\"]"), ""},
		"without a token":        {block("a", `may = ["read"]`), `Missing token`},
		"without rights":         {block("a", `token = env("ONE")`), `Missing may`},
		"a right that is none":   {block("a", `token = env("ONE")`+"\n    may = [\"reed\"]"), `Did you mean "read"?`},
		"a short token":          {block("a", `token = env("SHORT")`+"\n    may = [\"read\"]"), "at least 16 characters"},
		"the same token twice":   {block("a", `token = env("ONE")`+"\n    may = [\"read\"]") + block("b", `token = env("ONE")`+"\n    may = [\"read\"]"), `Access "a" has the same token`},
		"the token of admin":     {block("a", `token = env("WHOLE")`+"\n    may = [\"read\"]"), "It is the token of admin, which has the whole power"},
		"bound to nothing":       {block("a", `token = env("ONE")`+"\n    may = [\"read\"]\n    tenants = []"), "Leave it out for all"},
		"a name twice":           {block("a", `token = env("ONE")`+"\n    may = [\"read\"]") + block("a", `token = env("TWO")`+"\n    may = [\"read\"]"), "Duplicate"},
		"a name that is no text": {block(`\n`, `token = env("ONE")`+"\n    may = [\"read\"]"), "Invalid name"},
	} {
		f, err := Parse("relay.hcl", []byte("admin {\n  token = env(\"WHOLE\")\n"+c.text+"}\n"), env.get)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "relay.hcl:")):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("%s: the error quotes a token: %v", name, err)
		case err == nil && (len(f.Config.Admin.Access) != 2 || f.Config.Admin.Access[1].Tenants[0] != "acme"):
			t.Errorf("%s: %+v", name, f.Config.Admin.Access)
		}
	}
}
