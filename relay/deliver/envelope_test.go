package deliver

import (
	"testing"
	"time"

	"relay/outbox"
)

func TestEnvelope(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		name string
		e    outbox.Event
		want string
	}{
		{"whole second, other zone", outbox.Event{ID: "evt_1", Type: "a.b", Time: at, Data: []byte(`{"x":1}`)},
			`{"id":"evt_1","type":"a.b","timestamp":"2026-01-02T02:04:05Z","data":{"x":1}}`},
		{"fraction", outbox.Event{ID: "evt_1", Type: "a.b", Time: at.Add(120 * time.Millisecond), Data: []byte(`null`)},
			`{"id":"evt_1","type":"a.b","timestamp":"2026-01-02T02:04:05.12Z","data":null}`},
		{"bytes of data stay", outbox.Event{ID: "evt_1", Type: "a", Time: at, Data: []byte("{ \"b\": 1.0e+2,\n\t\"a\": \"<&> \\u00e9 \u2028 \\\" \" , \"n\":12345678901234567890 }\r\n")},
			"{\"id\":\"evt_1\",\"type\":\"a\",\"timestamp\":\"2026-01-02T02:04:05Z\",\"data\":{\"b\":1.0e+2,\"a\":\"<&> \\u00e9 \u2028 \\\" \",\"n\":12345678901234567890}}"},
		{"halves of surrogate pairs", outbox.Event{ID: "evt_1", Type: "a", Time: at, Data: []byte(`{ "\uD83D" : "\ude00" }`)},
			`{"id":"evt_1","type":"a","timestamp":"2026-01-02T02:04:05Z","data":{"\uD83D":"\ude00"}}`},
		{"an id cannot break out", outbox.Event{ID: `x","type":"y`, Type: "a", Time: at, Data: []byte(`0`)},
			`{"id":"x\",\"type\":\"y","type":"a","timestamp":"2026-01-02T02:04:05Z","data":0}`},
	} {
		if got := string(appendEnvelope(nil, &c.e)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}
