package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
	"relay/relay/admin"
)

// Endpoints made at run time connect as the policies of the file say. What is not shown of them does not
// matter, but for a key.
func TestMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.hcl")
	testkit.Must(t, os.WriteFile(file, []byte(`
		policy "customer" {
		  tls {
		    server_name = "customers.example.com"
		  }
		}
		runtime {
		  policies  = ["customer"]
		  overrides = ["tls"]
		}`), 0o600))
	f, err := config.Load([]string{file}, os.LookupEnv)
	testkit.Must(t, err)
	p, err := policy.Decode(f)
	testkit.Must(t, err)
	made := func(name, settings string) admin.Endpoint {
		return admin.Endpoint{Name: name, Enabled: true, Made: &admin.Made{Settings: json.RawMessage(settings)}}
	}
	off := made("off", `{"url":"https://off.example.com"}`)
	off.Enabled = false
	flawed := made("flawed", `{"url":"https://flawed.example.com","policy":"gone"}`)
	flawed.Made.Flaws = []admin.Flaw{{Pointer: "/policy", Detail: "the file allows [customer]."}}
	got, found := Made(p.Compiler(), []admin.Endpoint{
		made("acme", `{"url":"https://acme.example.com:8443/x?***","headers":{"X-Key":"***"},"sign":["github"],"when":"event.data.a > 1","tenants":["acme"]}`),
		made("keyed", `{"url":"https://keyed.example.com","tls":{"cert":"c.pem","key":"***"}}`),
		made("other", `{"url":"https://other.example.com","policy":"gone"}`),
		off, flawed, {Name: "of the file", Enabled: true},
	})
	if len(got) != 1 || got[0].Name != "acme" || got[0].URL.Host != "acme.example.com:8443" || got[0].TLS.ServerName != "customers.example.com" {
		t.Errorf("looks at %+v", got)
	}
	if len(found) != 1 || strings.Join(found[0].Endpoints, " ") != "keyed other" || found[0].Level != Warns {
		t.Errorf("found %+v", found)
	}
}
