package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"relay/config"
	"relay/ingest"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

// Each file of examples/bodies is good, and makes of one event what testdata/bodies.txtar has
// under its name.
func TestExampleBodies(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/bodies.txtar")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := ingest.ParseEvent(archive.Files[0].Data, ingest.Options{MaxBody: config.MiB, Route: func(*outbox.Event) ([]string, []outbox.Term) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x", "TEAMS_WORKFLOW_URL": "https://example.com/workflows/x",
		"DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/x", "PAGERDUTY_ROUTING_KEY": "canary-routing-key", "FORM_SECRET": explainSecret,
	} {
		t.Setenv(name, value)
	}
	files, err := filepath.Glob("../examples/bodies/*.hcl")
	if err != nil || len(files) != len(archive.Files)-1 {
		t.Fatal(files, err)
	}
	for _, want := range archive.Files[1:] {
		t.Run(want.Name, func(t *testing.T) {
			file := "../examples/bodies/" + want.Name + ".hcl"
			var out, errs bytes.Buffer
			if code := run([]string{"check", file}, streams{strings.NewReader(""), &out, &errs}); code != exitOK {
				t.Fatalf("relay check: code %d, %s", code, &errs)
			}
			f, err := config.Load([]string{file}, os.LookupEnv)
			if err != nil {
				t.Fatal(err)
			}
			p, err := policy.Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := deliver.Preview(p.Endpoint(want.Name), &entry.Event, "1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			wantBody := strings.TrimSpace(string(want.Data))
			if want.Name != "form" {
				var compact bytes.Buffer
				if err := json.Compact(&compact, want.Data); err != nil {
					t.Fatal(err)
				}
				wantBody = compact.String()
			}
			if string(r.Body) != wantBody {
				t.Errorf("body is\n%s, want\n%s", r.Body, wantBody)
			}
			shown, err := deliver.Preview(&policy.Endpoint{URL: p.Endpoint(want.Name).URL, Body: p.Endpoint(want.Name).Body.Masked()}, &entry.Event, "1", time.Now())
			if err != nil || bytes.Contains(shown.Body, []byte("canary")) {
				t.Errorf("what explain shows: %s, %v", shown.Body, err)
			}
		})
	}
}
