package ingest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/policy"
)

// Fields of the file's index come with the event as text: numbers as they were written, and nothing that has no one value.
func TestIndexedFields(t *testing.T) {
	long := strings.Repeat("x", maxField+1)
	data := `{"deviceId":"d\u0031","n":12345678901234567890.10,"on":true,"none":null,"list":[1],"in":{"side":-0},"long":"` + long + `"}`
	paths := []string{"data.deviceId", "data.n", "data.on", "data.none", "data.list", "data.in", "data.in.side", "data.in.side.more", "data.absent", "data.long"}
	want := []outbox.Field{{Path: "data.deviceId", Value: "d1"}, {Path: "data.n", Value: "12345678901234567890.10"}, {Path: "data.on", Value: "true"}, {Path: "data.in.side", Value: "-0"}}
	if diff := cmp.Diff(want, appendFields(nil, []byte(data), paths)); diff != "" {
		t.Error(diff)
	}
	if got := appendFields(nil, []byte(`[1]`), paths); got != nil {
		t.Errorf("fields of an array: %v", got)
	}
}

// The paths of all events come first, then those of the type.
func TestFieldsOfType(t *testing.T) {
	in := New(Options{
		Outbox: nil,
		Index:  []string{"data.a"},
		Type: func(name string) (*policy.EventType, bool) {
			return &policy.EventType{Name: name, Index: []string{"data.b", "data.a"}}, true
		},
		Self:  func() string { return "relay-1" },
		Route: func(*outbox.Event) ([]string, []outbox.Term) { return nil, nil },
	})
	b, _, p := in.read(&Request{Via: "unix", Method: "POST", Path: "/v1/events/x", ContentType: "application/json", Body: []byte(`{"a":1,"b":2}`)})
	if p != nil {
		t.Fatal(p)
	}
	e := b.Entries[0].Event
	if diff := cmp.Diff([]outbox.Field{{Path: "data.a", Value: "1"}, {Path: "data.b", Value: "2"}}, e.Fields); diff != "" {
		t.Error(diff)
	}
	if e.Via != "unix" || e.Relay != "relay-1" {
		t.Errorf("accepted via %q by %q", e.Via, e.Relay)
	}
}
