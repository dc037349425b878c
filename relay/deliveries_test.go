package main

import (
	"encoding/json"
	"strings"
	"testing"

	"relay/relay/admin"
	"relay/relay/client"
)

// What receivers and senders chose controls no terminal and makes no row.
func TestTextsOfOthersAreHarmless(t *testing.T) {
	var d admin.DeliveryWhole
	text := `{"id":"dlv_1","endpoint":"e","state":"failed","error":"x\u001b[2Jy","event":{"id":"evt_1","type":"t","key":"a\tb"},
		"history":[{"n":1,"status":500,"error":"\u009b31m","response":{"headers":[{"name":"X","value":"\u001b]0;t\u0007"}],"body":"one\r\ntwo\u001b[0m\u202e"}}],
		"request":{"method":"POST","url":"http://a/\u0007","headers":[]},"payload":{"a":"\u001b"}}`
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	var table client.Table
	table.Add(d.Error, d.Event.Key, "")
	for _, got := range []string{deliveryText(&d), strings.Join(table.Rows[0], "|")} {
		for _, bad := range []string{"\x1b", "\u009b", "\a", "\u202e", "\t", "\r"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q has %q", got, bad)
			}
		}
	}
	if got := strings.Join(table.Rows[0], "|"); got != `x\x1b[2Jy|a\tb|-` {
		t.Errorf("cells are %s", got)
	}
	if got := deliveryText(&d); !strings.Contains(got, "\n    one\n    two") {
		t.Errorf("lines of the body are lost:\n%s", got)
	}
}

func TestRoutesInRefusalsBecomeVerbs(t *testing.T) {
	for text, want := range map[string]string{
		"GET /v1/deliveries lists them":                       "relay deliveries lists them",
		"POST /v1/deliveries/{id}/retry makes it due now":     "relay retry ID makes it due now",
		"GET /v1/nothing is no route":                         "GET /v1/nothing is no route",
		"3 are pending. force=true deletes it and holds them": "3 are pending. --force deletes it and holds them",
	} {
		if got := verbsFor(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
