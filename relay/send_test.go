package main

import (
	"encoding/json"
	"testing"
)

// The data of an event with a tenant or an id is sent byte for byte as it was given.
func TestSendKeepsTheData(t *testing.T) {
	for _, data := range []string{`{"html": "<script>&amp;\u2028", "n": 1.0e3,  "big": 12345678901234567890}`, `"x"`, `[]`} {
		body, err := envelope{ID: "evt_1", Tenant: `a"b`}.whole("order.paid", []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"type":"order.paid","id":"evt_1","tenant":"a\"b","data":` + data + "}"; string(body) != want || !json.Valid(body) {
			t.Errorf("%s\nwant %s", body, want)
		}
	}
	if _, err := (envelope{ID: "evt_1"}).whole("order.paid", []byte(`{"a":1},"type":"b"`)); err == nil {
		t.Error("what is no JSON is put into an event")
	}
}
