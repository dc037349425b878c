package sign

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	official "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"
)

func TestVerifyErrors(t *testing.T) {
	stripe := Spec{Signed: template("${timestamp}.${body}"), Headers: []HeaderSpec{{"Sig", template("t=${timestamp},v1=${signature}")}}}
	times := Spec{Signed: template("${timestamp_ms}${body}"), Headers: []HeaderSpec{
		{"Ms", template("${timestamp_ms}")}, {"S", template("${timestamp}")}, {"Rfc", template("${timestamp_rfc3339}")}, {"Sig", template("${signature}")}}}
	asked := Spec{Signed: template("${method} ${url} ${attempt} ${body}"), Headers: []HeaderSpec{
		{"Url", template("${url}")}, {"Attempt", template("${attempt}")}, {"Sig", template("${signature}")}}}
	closed := Spec{Signed: template("${body}"), Headers: []HeaderSpec{{"Sig", template("<${signature}>")}}}
	set := func(name, value string) func(http.Header, *Message) {
		return func(h http.Header, _ *Message) { h.Set(name, value) }
	}
	tests := []struct {
		name   string
		spec   Spec // no Signed: the standard scheme
		change func(http.Header, *Message)
		want   string // "" = good
	}{
		{"nothing", Spec{}, func(http.Header, *Message) {}, ""},
		{"no id", Spec{}, func(h http.Header, _ *Message) { h.Del("webhook-id") }, "header webhook-id is missing"},
		{"empty id", Spec{}, set("webhook-id", ""), "header webhook-id is not of the form ${id}"},
		{"no timestamp", Spec{}, func(h http.Header, _ *Message) { h.Del("webhook-timestamp") }, "header webhook-timestamp is missing"},
		{"no signature", Spec{}, func(h http.Header, _ *Message) { h.Del("webhook-signature") }, "header webhook-signature is missing"},
		{"two ids", Spec{}, func(h http.Header, _ *Message) { h.Add("webhook-id", "evt_2") }, "header webhook-id is there 2 times"},
		{"other id", Spec{}, set("webhook-id", "evt_2"), "no signature matches"},
		{"other timestamp", Spec{}, set("webhook-timestamp", "1614265331"), "no signature matches"},
		{"other body", Spec{}, func(_ http.Header, m *Message) { m.Body = []byte(`{"id":"evt_2"}`) }, "no signature matches"},
		{"word", Spec{}, set("webhook-timestamp", "now"), "header webhook-timestamp has a bad timestamp: not a number of seconds"},
		{"sign", Spec{}, set("webhook-timestamp", "+1614265330"), "header webhook-timestamp contradicts the request or is not in its usual form"},
		{"version only", Spec{}, set("webhook-signature", "v1,"), "no signature matches"},
		{"no version", Spec{}, set("webhook-signature", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="), "no signature matches"},
		{"others around it", Spec{}, func(h http.Header, _ *Message) {
			h.Set("webhook-signature", "v2,abc  v1a,abc "+h.Get("webhook-signature")+" v1,abc")
		}, ""},
		{"other version", Spec{}, func(h http.Header, _ *Message) {
			h.Set("webhook-signature", strings.Replace(h.Get("webhook-signature"), "v1,", "v1a,", 1))
		}, "no signature matches"},
		{"line break in it", Spec{}, func(h http.Header, _ *Message) {
			h.Set("webhook-signature", strings.Replace(h.Get("webhook-signature"), "v1,", "v1,\n", 1))
		}, "no signature matches"},
		{"16th signature", Spec{}, func(h http.Header, _ *Message) {
			h.Set("webhook-signature", strings.Repeat("v1,abc ", 15)+h.Get("webhook-signature"))
		}, ""},
		{"17th signature", Spec{}, func(h http.Header, _ *Message) {
			h.Set("webhook-signature", strings.Repeat("v1,abc ", 16)+h.Get("webhook-signature"))
		}, "there are 17 signatures, at most 16 are tried"},

		{"5 minutes old", Spec{}, func(_ http.Header, m *Message) { m.Time = time.Unix(1614265330+300, 0) }, ""},
		{"older", Spec{}, func(_ http.Header, m *Message) { m.Time = time.Unix(1614265330+300, 1) }, "timestamp is 5m0s old, at most 5m0s is accepted"},
		{"7 minutes old", Spec{}, func(_ http.Header, m *Message) { m.Time = time.Unix(1614265330+420, 0) }, "timestamp is 7m0s old, at most 5m0s is accepted"},
		{"5 minutes ahead", Spec{}, func(_ http.Header, m *Message) { m.Time = time.Unix(1614265330-300, 0) }, ""},
		{"further ahead", Spec{}, func(_ http.Header, m *Message) { m.Time = time.Unix(1614265330-301, 0) }, "timestamp is 5m1s ahead, at most 5m0s is accepted"},
		{"year 1", Spec{}, set("webhook-timestamp", fmt.Sprint(time.Time{}.Unix())), "old, at most"},

		{"one header", stripe, func(http.Header, *Message) {}, ""},
		{"one header, other time", stripe, func(h http.Header, _ *Message) { h.Set("Sig", strings.Replace(h.Get("Sig"), "t=1", "t=2", 1)) }, "timestamp is"},
		{"one header, no form", stripe, set("Sig", "v1=abc"), "header Sig is not of the form t=${timestamp},v1=${signature}"},
		{"one header, other text", stripe, set("Sig", "time=1614265330,v1=abc"), "header Sig is not of the form t=${timestamp},v1=${signature}"},
		{"one header, no second part", stripe, set("Sig", "t=1614265330"), "header Sig is not of the form t=${timestamp},v1=${signature}"},
		{"one header, no end", stripe, set("Sig", "t=1614265330,v1="), "header Sig is not of the form t=${timestamp},v1=${signature}"},
		{"upper case hex", stripe, func(h http.Header, _ *Message) { h.Set("Sig", "t=1614265330,v1="+strings.ToUpper(h.Get("Sig")[16:])) }, "no signature matches"},
		{"two lines, the second fits", stripe, func(h http.Header, _ *Message) {
			h["Sig"] = []string{"t=1614265330,v1=abc", h.Get("Sig")}
		}, ""},
		{"two lines, two times", stripe, func(h http.Header, _ *Message) { h.Add("Sig", "t=1614265331,v1=abc") }, "header Sig contradicts the request"},

		{"three times", times, func(http.Header, *Message) {}, ""},
		{"seconds contradict", times, set("S", "1614265331"), "header Ms contradicts the request"},
		{"other millisecond", times, set("Ms", "1614265330124"), "no signature matches"},
		{"bad milliseconds", times, set("Ms", "1e3"), "header Ms has a bad timestamp_ms: not a number of milliseconds"},
		{"RFC 3339, comma", times, set("Rfc", "2021-02-25T15:02:10,5Z"), "header Rfc has a bad timestamp_rfc3339: not an RFC 3339 time"},
		{"bad RFC 3339", times, set("Rfc", "yesterday"), "header Rfc has a bad timestamp_rfc3339: not an RFC 3339 time"},
		{"RFC 3339 in another zone", times, set("Rfc", "2021-02-25T16:02:10+01:00"), "header Rfc contradicts the request"},

		{"text after the end", closed, func(h http.Header, _ *Message) { h.Set("Sig", h.Get("Sig")+"x") }, "header Sig contradicts the request or is not in its usual form"},

		{"method and url", asked, func(http.Header, *Message) {}, ""},
		{"other method", asked, func(_ http.Header, m *Message) { m.Method = "PUT" }, "no signature matches"},
		{"claimed url", asked, func(_ http.Header, m *Message) { m.URL = "https://other.example.com/" }, "header Url contradicts the request"},
		{"bad attempt", asked, set("Attempt", "two"), "header Attempt has a bad attempt: not a number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scheme, secret := Standard(), whsec(1)
			if tt.spec.Signed != nil {
				scheme, secret = mustNew(t, tt.spec), rawSecret
			}
			h := header(mustSigner(t, scheme, secret).Sign(nil, message()))
			m := received()
			tt.change(h, m)
			got := "<nil>"
			err := mustVerifier(t, scheme, secret).Verify(h.Values, m, 5*time.Minute)
			if err != nil {
				got = err.Error()
			}
			if (tt.want == "") != (err == nil) || !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %q", got, tt.want)
			}
		})
	}
}

// What is signed but carried by no header is the receiver's to know.
func TestVerifyKnownByReceiver(t *testing.T) {
	scheme := mustNew(t, Spec{Signed: template("${id}.${body}"), Headers: []HeaderSpec{{"S", template("${signature}")}}})
	h := header(mustSigner(t, scheme, rawSecret).Sign(nil, message()))
	v := mustVerifier(t, scheme, rawSecret)
	m := received()
	m.Time = m.Time.Add(24 * time.Hour) // no header carries the time: any is good
	if err := v.Verify(h.Values, m, 0); err == nil {
		t.Error("verifies without the id")
	}
	m.EventID = message().EventID
	if err := v.Verify(h.Values, m, 0); err != nil {
		t.Error(err)
	}
}

// Any scheme: what was signed verifies, and with one byte changed, in the body or
// in a header, it does not.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scheme, secret := drawScheme(t)
		m := &Message{Method: "POST", URL: "https://example.com/a?b=c", ContentType: "application/json; charset=utf-8", Attempt: rapid.IntRange(1, 99).Draw(t, "attempt")}
		for name, field := range map[string]*string{"id": &m.EventID, "type": &m.EventType, "delivery": &m.DeliveryID, "endpoint": &m.Endpoint} {
			*field = rapid.StringMatching(`[A-Za-z0-9_-]{1,20}`).Draw(t, name)
		}
		m.Time = time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "time"))
		m.Body = rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "body")

		signer, err := NewSigner(scheme, []string{secret})
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := NewVerifier(scheme, []string{secret})
		if err != nil {
			t.Fatal(err)
		}
		lines := signer.Sign(nil, m)
		verify := func() error {
			// The time is far from a receiver's clock, so that only signatures are judged.
			at := &Message{Method: m.Method, URL: m.URL, ContentType: m.ContentType, Body: m.Body, Time: time.UnixMilli(0)}
			return verifier.Verify(header(lines).Values, at, 1<<62)
		}
		if err := verify(); err != nil {
			t.Fatalf("Verify of %v: %v", lines, err)
		}

		bit := byte(1) << rapid.IntRange(0, 7).Draw(t, "bit")
		if i := rapid.IntRange(0, len(lines)).Draw(t, "where"); i < len(lines) {
			value := []byte(lines[i].Value)
			value[rapid.IntRange(0, len(value)-1).Draw(t, "byte")] ^= bit
			lines[i].Value = string(value)
		} else {
			m.Body[rapid.IntRange(0, len(m.Body)-1).Draw(t, "byte")] ^= bit
		}
		if verify() == nil {
			t.Fatalf("Verify accepts changed %v, body %q", lines, m.Body)
		}
	})
}

// drawScheme makes a scheme that signs all that its headers carry.
func drawScheme(t *rapid.T) (*Scheme, string) {
	if rapid.Bool().Draw(t, "standard") {
		return Standard(), rapid.SampledFrom([]string{whsec(1), whsk(1)}).Draw(t, "secret")
	}
	spec := Spec{
		Algorithm: rapid.SampledFrom([]string{"hmac-sha1", "hmac-sha256", "hmac-sha512", "ed25519"}).Draw(t, "algorithm"),
		Encoding:  rapid.SampledFrom([]string{"hex", "base64"}).Draw(t, "encoding"),
		Secret:    "whsec",
		Signed:    Template{{Variable: "body"}},
	}
	secret := whsec(1)
	if spec.Algorithm == "ed25519" {
		secret = whsk(1)
	}
	rest := rapid.Permutation(append(variables(), "signature")).Draw(t, "variables")
	for i := 0; len(rest) > 0; i++ {
		n := rapid.IntRange(1, len(rest)).Draw(t, "header")
		value := Template{{Literal: "<"}}
		for _, v := range rest[:n] {
			value = append(value, Part{Variable: v}, Part{Literal: rapid.SampledFrom([]string{";", " | ", ">"}).Draw(t, "text")})
			if v != "signature" {
				spec.Signed = append(spec.Signed, Part{Literal: "."}, Part{Variable: v})
			}
		}
		spec.Headers = append(spec.Headers, HeaderSpec{fmt.Sprintf("X-%d", i), value})
		rest = rest[n:]
	}
	scheme, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return scheme, secret
}

// FuzzVerify: no request makes Verify panic, and it accepts none that the library
// of Standard Webhooks does not.
func FuzzVerify(f *testing.F) {
	theirs, err := official.NewWebhook(whsec(1))
	if err != nil {
		f.Fatal(err)
	}
	standard, err := NewVerifier(Standard(), []string{whsec(1)})
	if err != nil {
		f.Fatal(err)
	}
	both, err := NewVerifier(Standard(), []string{whpk(1), whsec(1)})
	if err != nil {
		f.Fatal(err)
	}
	custom := mustVerifier(f, mustNew(f, Spec{
		Signed:  template("${id}${timestamp_ms}${attempt}${body}"),
		Headers: []HeaderSpec{{"webhook-signature", template("t=${timestamp_ms},n=${attempt},v1=${signature}")}, {"webhook-id", template("${id}")}},
	}), rawSecret)

	good := header(mustSigner(f, Standard(), whsec(1), whsk(1)).Sign(nil, message()))
	f.Add(good.Get("webhook-id"), good.Get("webhook-timestamp"), good.Get("webhook-signature"), message().Body)
	f.Add("", "", "", []byte(nil))
	f.Add("evt.1", "-9223372036854775808", "v1, v1a,  v1a,AA== ,", []byte("{}"))
	f.Add("a", "9223372036854775807", "t=-1,n=,v1=", []byte("\x00"))
	f.Add("a", "1", "t=9223372036854775807,n=1,v1=00", []byte("."))
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		h := header([]Header{{"webhook-id", id}, {"webhook-timestamp", timestamp}, {"webhook-signature", signature}})
		m := &Message{Time: sent, Body: body}
		if err := standard.Verify(h.Values, m, 1<<63-1); err == nil {
			if err := theirs.VerifyIgnoringTimestamp(body, h); err != nil {
				t.Errorf("only ours accepts: %v", err)
			}
		}
		both.Verify(h.Values, m, time.Minute)
		custom.Verify(h.Values, m, time.Minute)
	})
}

// FuzzRoundTrip: whatever the event and the scheme, what is signed verifies, and not
// with another body.
func FuzzRoundTrip(f *testing.F) {
	for i := range BuiltinNames() {
		f.Add(uint8(i), uint8(1), "evt_1", "invoice.paid", "https://example.com/in?a=1", "application/json", int64(1614265330), []byte("{}"))
	}
	f.Add(uint8(7), uint8(3), "", "", "", "", int64(-1), []byte(nil))
	f.Fuzz(func(t *testing.T, scheme, secrets uint8, id, eventType, url, contentType string, at int64, body []byte) {
		name := BuiltinNames()[int(scheme)%len(BuiltinNames())]
		signer := mustSigner(t, builtin(t, name), []string{whsec(1), whsk(2), whsec(3)}[:1+secrets%3]...)
		m := &Message{EventID: id, EventType: eventType, Method: "POST", URL: url, ContentType: contentType, Time: time.Unix(at, 0), Body: body}
		lines := request(signer, m)
		verify := func(body []byte) error {
			seen := &Message{Method: "POST", URL: url, ContentType: contentType, Time: m.Time, Body: body}
			return signer.Verifier().Verify(lines.Values, seen, time.Minute)
		}
		// An empty variable cannot be told from a missing one, and is refused.
		empty := id == "" && name != "stripe" && name != "slack" && name != "github-sha1" && name != "rfc9421" ||
			eventType == "" && (name == "github" || name == "shopify")
		if err := verify(body); (err != nil) != empty {
			t.Errorf("%s: %v", name, err)
		}
		if verify(append([]byte("x"), body...)) == nil {
			t.Errorf("%s: another body verifies", name)
		}
	})
}
