package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/config"
	"relay/policy/sign"
)

// The file's language can say what the built-in signatures say.
func TestBuiltinSignaturesAsBlocks(t *testing.T) {
	src, err := os.ReadFile("testdata/builtin-signatures.hcl")
	if err != nil {
		t.Fatal(err)
	}
	m := &sign.Message{
		EventID: "evt_1", EventType: "invoice.paid", DeliveryID: "dlv_1", Endpoint: "a", Method: "POST", Attempt: 1,
		URL: "https://example.com/in?a=1", ContentType: "application/json", Time: time.Unix(1614265330, 0), Body: []byte("{}"),
	}
	for _, name := range sign.BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			file := string(src) + `
				endpoint "builtin" {
				  url     = "https://example.com/in"
				  secrets = [env("GOOD"), "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
				  sign    = ["` + name + `"]
				}
				endpoint "block" {
				  url     = "https://example.com/in"
				  secrets = [env("GOOD"), "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
				  sign    = ["my-` + name + `"]
				}`
			f, err := config.Parse("testdata/relay.hcl", []byte(file), testEnv)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			lines := func(endpoint string) []sign.Header {
				all := p.Endpoint(endpoint).Signers[0].Sign(nil, m)
				return slices.DeleteFunc(all, func(h sign.Header) bool { return strings.EqualFold(h.Name, "webhook-id") })
			}
			if diff := cmp.Diff(lines("builtin"), lines("block")); diff != "" {
				t.Errorf("-built-in +block:\n%s", diff)
			}
		})
	}
}
