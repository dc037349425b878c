package registry

import (
	"strings"
	"testing"
	"testing/synctest"

	"relay/config"
	"relay/outbox/outboxtest"
	"relay/policy"
)

// What is exported can be put into the file: with its variables it is the same endpoint, and nothing that answers hide is
// in it, nor is a *** that would be taken for a value.
func TestText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, outboxtest.NewMem(outboxtest.MemOptions{}), file, keysOf(t, keyA))
		_, err := w.Create(t.Context(), []byte(`{"name":"shop-1","url":"https://a.test/x?key=canary-q","headers":{"X-Key":"canary-a","X_Key":"canary-b"},
			"secret":"whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5","timeout":{"total":"3s"},"description":"relay env(\"HOME\") ${env(\"HOME\")}"}`))
		if err != nil {
			t.Fatal(err)
		}
		text, err := w.Text("shop-1")
		if err != nil || strings.Contains(text, "canary") || strings.Contains(text, "Y2FuYXJ5") || strings.Contains(text, `"***"`) {
			t.Fatalf("%v\n%s", err, text)
		}
		for _, part := range []string{"# SHOP_1_URL: https://a.test/x?***, whole\n", "# SHOP_1_SECRET: relay secret show shop-1\n", `url = env("SHOP_1_URL")`, `secrets = [env("SHOP_1_SECRET")]`,
			`X-Key = env("SHOP_1_HEADERS_X_KEY")`, `X_Key = env("SHOP_1_HEADERS_X_KEY_2")`} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.TrimSpace(part)) {
				t.Errorf("without %s:\n%s", part, text)
			}
		}
		env := map[string]string{"SHOP_1_URL": "https://a.test/x?key=canary-q", "SHOP_1_SECRET": "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5", "SHOP_1_HEADERS_X_KEY": "canary-a", "SHOP_1_HEADERS_X_KEY_2": "canary-b"}
		f, err := config.Parse("relay.hcl", []byte(text), func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil {
			t.Fatal(err, "\n", text)
		}
		p, err := policy.Decode(f)
		if err != nil {
			t.Fatal(err, "\n", text)
		}
		moved := p.Endpoint("shop-1")
		if moved.URL.String() != env["SHOP_1_URL"] || moved.Headers[1].Value.Reveal() != "canary-b" || len(moved.Signers) != 1 || moved.Description != `relay env("HOME") ${env("HOME")}` {
			t.Errorf("moved: %+v\n%s", moved, text)
		}
	})
}

func TestVariableOf(t *testing.T) {
	for text, want := range map[string]string{"shop": "SHOP", "ep_1a-b.c": "EP_1A_B_C", "1st_url": "_1ST_URL", "é": "_"} {
		if got := variableOf(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
