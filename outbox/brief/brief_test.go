package brief_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relay/outbox/brief"
)

var facts = brief.Facts{
	Event: "evt_0197b3c4-5d6e-7f80-9182-a3b4c5d6e7f8", Delivery: "dlv_k3j9x2_1042", Attempt: 1,
	Started: time.Date(2026, 11, 29, 23, 59, 58, 123_456_000, time.UTC),
}

// request and answer are heads as records have them.
func request() string {
	return fmt.Sprintf("POST https://hooks.example.test/in\r\nContent-Type: application/json\r\nUser-Agent: Relay/1.4.0\r\nwebhook-id: %s\r\n"+
		"webhook-timestamp: %d\r\nwebhook-signature: ***\r\nRelay-Attempt: 1\r\nRelay-Delivery: %s\r\n", facts.Event, facts.Started.Unix(), facts.Delivery)
}

func answer(date time.Time) string {
	return "HTTP/1.1 200 OK\r\nDate: " + date.Format("Mon, 02 Jan 2006 15:04:05 GMT") + "\r\nContent-Length: 2\r\n"
}

// What is kept on disks is read by later versions: the bytes of a head do not change.
func TestKeptBytes(t *testing.T) {
	for _, c := range []struct{ head, kept string }{
		{"", ""},
		{request(), "\x01\x0bhooks.example.test/in\x03\x0c\x03\x0e1.4.0\x03\x0f\x04\x03\x10\x07\x50\x03\x11\x03\x12\x06\x03\x13\x05\x03"},
		{answer(facts.Started.Add(3 * time.Second)), "\x01\x15\x03\x18\x08\x53\x03\x1a2\x03"},
		{answer(facts.Started.Add(time.Hour)), "\x01\x15\x03\x18Mon, 30 Nov 2026 00:59:58 GMT\x03\x1a2\x03"},
		{"no head", "\x01no head"},
		{"a\tb\r\n", "\x02a\tb\r\n"},
		{"\x01\x0b", "\x02\x01\x0b"},
	} {
		if kept := facts.Pack(nil, c.head); string(kept) != c.kept {
			t.Errorf("%q is kept as\n%q, want\n%q", c.head, kept, c.kept)
		}
		if head := facts.Unpack(c.kept); head != c.head {
			t.Errorf("%q is read as %q, want %q", c.kept, head, c.head)
		}
	}
	if head := facts.Unpack(request()); head != request() {
		t.Errorf("a head that was kept as it is is read as %q", head)
	}
}

// Any head comes back as it was, whatever it is made of.
func TestEachHeadComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := brief.Facts{
			Event: rapid.SampledFrom([]string{facts.Event, "", "7", "1795996798"}).Draw(t, "event"), Delivery: facts.Delivery,
			Attempt: rapid.IntRange(0, 2000).Draw(t, "attempt"), Started: time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "started")),
		}
		near := f.Started.Add(time.Duration(rapid.IntRange(-100, 100).Draw(t, "seconds")) * time.Second).UTC()
		pieces := []string{
			"POST https://", "POST http", "Content-Type: ", "application/json", "Date: ", "webhook-id: ", "Relay-Attempt: ", f.Event, f.Delivery,
			fmt.Sprint(f.Attempt), fmt.Sprint(near.Unix()), "+179599679", "0000000000", near.Format("Mon, 02 Jan 2006 15:04:05 GMT"),
			strings.Repeat("x", 25) + " GMT", "\r\n", "\r\n", "\r\n", "\r", "\n", "\t", "\x00", "\x01", "\x03", "\x7f", "\xff", "ü", " ",
		}
		parts := rapid.SliceOf(rapid.OneOf(rapid.SampledFrom(pieces), rapid.String())).Draw(t, "parts")
		head := strings.Join(parts, "")
		kept := f.Pack([]byte("before"), head)
		if got := f.Unpack(string(kept[len("before"):])); got != head || len(kept) > len("before")+len(head)+1 {
			t.Fatalf("%q came back as %q, from %q", head, got, kept)
		}
	})
}

// What is damaged is read without harm.
func FuzzUnpack(f *testing.F) {
	f.Add("\x01\x0b\x07")
	f.Add("\x01\x08")
	f.Add("\x01\x1f\x09")
	f.Fuzz(func(_ *testing.T, kept string) { facts.Unpack(kept) })
}

func BenchmarkPack(b *testing.B) {
	var room [512]byte
	one, two := request(), answer(facts.Started)
	for b.Loop() {
		facts.Pack(facts.Pack(room[:0], one), two)
	}
}
