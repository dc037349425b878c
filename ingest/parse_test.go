package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"relay/outbox"
)

// Texts are taken or refused as a request with them is, with the same code and field.
func TestParseEventIsWhatIngestDoes(t *testing.T) {
	for _, text := range []string{
		`{"type":"a.b","data":{}}`,
		`{"type":"a.b","data":1,"id":"x-1","time":"2026-01-02T03:04:05Z","tenant":"t","key":"k"}`,
		``, ` `, `{`, `{"type":"a"}`, `{"data":1}`, `7`, `{"type":"a","data":1} 2`,
		`{"type":"relay.a","data":1}`, `{"type":"a","data":1,"id":"a.b"}`, `{"type":"a","data":1,"time":"never"}`,
		`{"type":"a","data":1,"time":"0001-01-01T00:00:00Z"}`, `{"type":"a","data":1,"tenant":""}`, `{"type":"a","data":1,"key":3}`,
		`{"type":"a","data":1,"dta":1}`, `{"type":"a","data":{"x":1,"x":2}}`, "{\"type\":\"a\",\"data\":\"\xff\"}",
		`{"type":"a","data":{"\ud83d":"\ude00"}}`, `{"type":"a","data":1,"id":"\ud83d"}`, `{"type":"a","data":{"\ud83d":1,"\ud83d":2}}`,
		`{"type":"a","data":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		in := New(Options{Outbox: accepting{}, Route: func(*outbox.Event) ([]string, []outbox.Term) { return nil, nil }})
		answer := in.Handle(t.Context(), &Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: []byte(text)})
		var want struct {
			Code, Field, Pointer, Detail string
			Offset                       *int
		}
		if err := json.Unmarshal(answer.Body, &want); err != nil {
			t.Fatal(err)
		}
		_, err := ParseEvent([]byte(text), Options{Route: route, MaxBody: 1 << 20})
		if want.Code == "" {
			if err != nil {
				t.Errorf("%.60s: %v, but it is accepted", text, err)
			}
			continue
		}
		got, ok := errors.AsType[*EventError](err)
		if !ok {
			t.Errorf("%.60s: %v, want %s", text, err, want.Code)
			continue
		}
		offset := -1
		if want.Offset != nil {
			offset = *want.Offset
		}
		if got.Code != want.Code || got.Field != want.Field || got.Pointer != want.Pointer || got.Detail != want.Detail || got.Offset != offset {
			t.Errorf("%.60s: %+v, want %+v", text, *got, want)
		}
	}
}

// A mismatch with a schema says where in the data it is.
func TestParseEventPointsIntoTheData(t *testing.T) {
	p := declared(t, `
event_type "a" {
  schema = jsonencode({ properties = { n = { type = "integer" } } })
}
`)
	_, err := ParseEvent([]byte(`{"type":"a","data":{"n":"x"}}`), Options{Route: route, Type: p.Type, MaxBody: 1 << 20})
	if e, ok := errors.AsType[*EventError](err); !ok || e.Code != "schema_mismatch" || e.Field != "data" || e.Pointer != "/n" {
		t.Errorf("%+v", err)
	}
}

func TestParseEventLimits(t *testing.T) {
	_, err := ParseEvent([]byte(`{"type":"a","data":"longer than that"}`), Options{Route: route, MaxBody: 20})
	if e, ok := errors.AsType[*EventError](err); !ok || e.Code != "body_too_large" {
		t.Errorf("too large: %v", err)
	}
	if _, err := ParseEvent([]byte(`[{"type":"a","data":1}]`), Options{Route: route, MaxBody: 100}); !errors.Is(err, errManyEvents) {
		t.Errorf("a batch: %v", err)
	}
	entry, err := ParseEvent([]byte(`{"type":"a","data":1}`), Options{Route: route, MaxBody: 100})
	if err != nil || !strings.HasPrefix(entry.Event.ID, "evt_") || entry.Event.Time.IsZero() || entry.Fingerprint != (outbox.Fingerprint{}) {
		t.Errorf("without id and time: %+v, %v", entry, err)
	}
	entry, err = ParseEvent([]byte(`{"type":"a","data":1,"id":"x"}`), Options{Route: route, MaxBody: 100})
	if err != nil || entry.Event.ID != "x" || entry.Fingerprint == (outbox.Fingerprint{}) {
		t.Errorf("with an id: %+v, %v", entry, err)
	}
}

// accepting is an outbox that takes everything and keeps nothing.
type accepting struct{}

func (accepting) Accept(_ context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	return []outbox.Receipt{{ID: b.Entries[0].Event.ID}}, nil
}

func (accepting) Durability() string { return "memory" }
