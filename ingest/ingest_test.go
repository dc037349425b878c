package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/outbox/outboxtest"
)

// TestAccepted shows what is taken, in which form, and that the data stays as
// it came.
func TestAccepted(t *testing.T) {
	plain := func(eventType, data string) outbox.Event {
		return outbox.Event{Type: eventType, Data: []byte(data)}
	}
	full := outbox.Event{
		ID: "order-1_A", Type: "order.made", Tenant: "t ü", Key: "order/1", Data: []byte(`{ "n" : 1.0e+2, "s":"\u00fc\/" }`),
		Time: time.Date(2026, 11, 21, 9, 8, 7, 123456000, time.UTC),
	}
	tests := map[string]struct {
		r    *Request
		many bool
		want []outbox.Event // without the ids and times that ingest gives
	}{
		"event":                               {r: postJSON("/v1/events", `{"type":"a.b","data":{"x":[1,2]}}`), want: []outbox.Event{plain("a.b", `{"x":[1,2]}`)}},
		"all fields":                          {r: postJSON("/v1/events", ` {"key":"order\/1","tenant":"t ü","time":"2026-11-21T10:08:07.1234567+01:00","data":{ "n" : 1.0e+2, "s":"\u00fc\/" },"id":"order-1_A","type":"order.made"} `), want: []outbox.Event{full}},
		"null is not given":                   {r: postJSON("/v1/events", `{"type":"a","data":null,"id":null,"time":null,"tenant":null,"key":null}`), want: []outbox.Event{plain("a", `null`)}},
		"escaped names":                       {r: postJSON("/v1/events", `{"t\u0079pe":"\u0061","d\u0061ta":1}`), want: []outbox.Event{plain("a", `1`)}},
		"charset":                             {r: post("/v1/events", "Application/JSON; charset=UTF-8", `{"type":"a","data":1}`), want: []outbox.Event{plain("a", `1`)}},
		"suffix":                              {r: post("/v1/events", "application/vnd.acme+json", `{"type":"a","data":1}`), want: []outbox.Event{plain("a", `1`)}},
		"identity":                            {r: &Request{Method: "POST", Path: "/v1/events/a", ContentType: "application/json", ContentEncoding: "identity", Body: []byte("1")}, want: []outbox.Event{plain("a", `1`)}},
		"data alone":                          {r: postJSON("/v1/events/invoice.paid", "\t{\"a\" : 1}\n"), want: []outbox.Event{plain("invoice.paid", `{"a" : 1}`)}},
		"any data":                            {r: postJSON("/v1/events/a", `"x"`), want: []outbox.Event{plain("a", `"x"`)}},
		"longest type":                        {r: postJSON("/v1/events/"+strings.Repeat("a", 128), `0`), want: []outbox.Event{plain(strings.Repeat("a", 128), `0`)}},
		"array":                               {r: postJSON("/v1/events", ` [{"type":"a","data":1} , {"type":"b","data":{}}]`), many: true, want: []outbox.Event{plain("a", "1"), plain("b", "{}")}},
		"array of one":                        {r: postJSON("/v1/events", `[{"type":"a","data":1}]`), many: true, want: []outbox.Event{plain("a", "1")}},
		"lines":                               {r: post("/v1/events", "application/x-ndjson", "\n{\"type\":\"a\",\"data\":1}\r\n\n {\"type\":\"b\",\"data\":2}"), many: true, want: []outbox.Event{plain("a", "1"), plain("b", "2")}},
		"line":                                {r: post("/v1/events", "application/jsonl", `{"type":"a","data":1}`), many: true, want: []outbox.Event{plain("a", "1")}},
		"B6 64 deep":                          {r: postJSON("/v1/events/a", nested(64)), want: []outbox.Event{plain("a", nested(64))}},
		"B6 64 deep in an event":              {r: postJSON("/v1/events", `{"type":"a","data":`+nested(64)+`}`), want: []outbox.Event{plain("a", nested(64))}},
		"B6 64 deep in a batch":               {r: postJSON("/v1/events", `[{"type":"a","data":`+nested(64)+`}]`), many: true, want: []outbox.Event{plain("a", nested(64))}},
		"B6 64 deep in a line":                {r: post("/v1/events", "application/x-ndjson", `{"type":"a","data":`+nested(64)+`}`), many: true, want: []outbox.Event{plain("a", nested(64))}},
		"B6 many brackets, shallow":           {r: postJSON("/v1/events/a", `["[[\"\\",`+strings.Repeat(`{"[":"]"},`, 99)+`"}"]`), want: []outbox.Event{plain("a", `["[[\"\\",`+strings.Repeat(`{"[":"]"},`, 99)+`"}"]`)}},
		"B6 brackets behind an escaped quote": {r: postJSON("/v1/events/a", `"\"`+nested(70)+`"`), want: []outbox.Event{plain("a", `"\"`+nested(70)+`"`)}},
		"B7 huge numbers in data":             {r: postJSON("/v1/events/a", `[1e999999,1`+strings.Repeat("0", 400)+`,-0.0]`), want: []outbox.Event{plain("a", `[1e999999,1`+strings.Repeat("0", 400)+`,-0.0]`)}},
		"surrogate pair":                      {r: postJSON("/v1/events/a", `"\ud83d\ude00"`), want: []outbox.Event{plain("a", `"\ud83d\ude00"`)}},
		"B5 lone surrogates":                  {r: postJSON("/v1/events/a", `{"\ud83d":"\uDE00 \\ud83d \ude00\ud83d","\ud83e":"","\ufffd":[]}`), want: []outbox.Event{plain("a", `{"\ud83d":"\uDE00 \\ud83d \ude00\ud83d","\ud83e":"","\ufffd":[]}`)}},
		"B5 lone surrogate in an event":       {r: postJSON("/v1/events", `{"type":"a","data": "\ud83d" }`), want: []outbox.Event{plain("a", `"\ud83d"`)}},
		"B5 lone surrogate in an array":       {r: postJSON("/v1/events", `[{"type":"a","data":"\ud83d"},{"type":"b","data":["é"]}]`), many: true, want: []outbox.Event{plain("a", `"\ud83d"`), plain("b", `["é"]`)}},
		"B5 lone surrogate in lines":          {r: post("/v1/events", "application/x-ndjson", "{\"type\":\"a\",\"data\":\"\\ud83d\"}\n{\"type\":\"b\",\"data\":\"\\ude00\"}"), many: true, want: []outbox.Event{plain("a", `"\ud83d"`), plain("b", `"\ude00"`)}},
		"same key in two objects":             {r: postJSON("/v1/events/a", `[{"a":1},{"a":1}]`), want: []outbox.Event{plain("a", `[{"a":1},{"a":1}]`)}},
		"B21 no endpoint wants it":            {r: postJSON("/v1/events/nobody.cares", `1`), want: []outbox.Event{plain("nobody.cares", `1`)}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(1500 * time.Nanosecond) // times are kept to the microsecond
				in, rec, faulty := newIngest(t, Options{})
				got := wantAccepted(t, in.Handle(t.Context(), test.r))
				clear(test.r.Body) // the memory of a request is used again

				receipts := []answer{got}
				if test.many {
					receipts = got.Events
				}
				if got.Durability != "memory" || len(receipts) != len(test.want) || (got.Events != nil) != test.many {
					t.Fatalf("got %+v", got)
				}
				for i, want := range test.want {
					e := rec.entries()[i]
					if want.ID == "" {
						checkMadeID(t, e.Event.ID)
						want.ID = e.Event.ID
					} else if e.Fingerprint == (outbox.Fingerprint{}) {
						t.Error("an event with an id of the app has no fingerprint")
					}
					if want.Time.IsZero() {
						want.Time = time.Now().UTC().Truncate(time.Microsecond)
					}
					if diff := cmp.Diff(want, e.Event); diff != "" {
						t.Errorf("event %d: %s", i, diff)
					}
					endpoints, _ := route(&want)
					if receipts[i].ID != want.ID || receipts[i].Deliveries != len(endpoints) || receipts[i].Duplicate {
						t.Errorf("receipt %d: %+v", i, receipts[i])
					}
					record, err := faulty.Lookup(t.Context(), want.ID)
					if err != nil || !bytes.Equal(record.Event.Data, want.Data) || len(record.Deliveries) != len(endpoints) {
						t.Errorf("stored %+v, %v", record, err)
					}
				}
			})
		})
	}
}

// TestTimes: the time of an event is one of RFC 3339 in each way that events come. A leap
// second becomes the second that follows.
func TestTimes(t *testing.T) {
	binary := func(at string) *Request { return headers("1", "time", at) }
	ways := map[string]func(at string) *Request{
		"event": func(at string) *Request { return postJSON("/v1/events", `{"type":"a","data":1,"time":"`+at+`"}`) },
		"array": func(at string) *Request { return postJSON("/v1/events", `[{"type":"a","data":1,"time":"`+at+`"}]`) },
		"lines": func(at string) *Request {
			return post("/v1/events", "application/x-ndjson", `{"type":"a","data":1,"time":"`+at+`"}`)
		},
		"structured": func(at string) *Request { return post("/v1/events", cloudType, cloud(`,"time":"`+at+`"`)) },
		"batch": func(at string) *Request {
			return post("/v1/events", "application/cloudevents-batch+json", `[`+cloud(`,"time":"`+at+`"`)+`]`)
		},
		"binary": binary,
	}
	for at, want := range map[string]string{
		"1990-12-31T23:59:60Z":        "1991-01-01T00:00:00Z",
		"1990-12-31T15:59:60.5-08:00": "1991-01-01T00:00:00.5Z",
		"2026-11-29t10:00:00z":        "2026-11-29T10:00:00Z",
		"2026-11-29T10:00:00,5Z":      "",
		"2026-11-29T1:00:00Z":         "",
		"2026-11-29T10:00:00+24:00":   "",
		"2026-11-29T10:00:60Z":        "",
	} {
		for name, way := range ways {
			in, rec, _ := newIngest(t, Options{})
			res := in.Handle(t.Context(), way(at))
			if want == "" {
				wantProblem(t, res, 400, "invalid_time")
				continue
			}
			wantAccepted(t, res)
			if got := rec.entries()[0].Event.Time.Format(time.RFC3339Nano); got != want {
				t.Errorf("%s: %s became %s, want %s", name, at, got, want)
			}
		}
	}
}

// checkMadeID wants "evt_" and a UUID of version 7.
func checkMadeID(t *testing.T, id string) {
	t.Helper()
	text, ok := strings.CutPrefix(id, "evt_")
	u, err := uuid.Parse(text)
	if !ok || err != nil || u.Version() != 7 {
		t.Errorf("made id %q", id)
	}
}

func TestThousandLines(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	got := wantAccepted(t, in.Handle(t.Context(), post("/v1/events", "application/x-ndjson", lines(1000))))
	if len(got.Events) != 1000 || len(rec.batches) != 1 {
		t.Fatalf("%d receipts in %d batches, want 1,000 in 1", len(got.Events), len(rec.batches))
	}
	for i, e := range rec.entries() {
		if got.Events[i].ID != e.Event.ID || string(e.Event.Data) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
}

// TestStrict: an event that nobody wants is refused, whole batch and all.
func TestStrict(t *testing.T) {
	tests := map[string]struct {
		r     *Request
		index *int
	}{
		"event": {r: postJSON("/v1/events", `{"type":"nobody","data":1}`)},
		"data":  {r: postJSON("/v1/events/nobody", `1`)},
		"batch": {r: postJSON("/v1/events", `[{"type":"a","data":1},{"type":"nobody","data":1}]`), index: new(1)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{Strict: true})
			got := wantProblem(t, in.Handle(t.Context(), test.r), 422, "no_endpoint")
			if !cmp.Equal(got.Index, test.index) || len(rec.entries()) != 0 {
				t.Errorf("index %s, %d stored", show(got.Index), len(rec.entries()))
			}
			wantAccepted(t, in.Handle(t.Context(), postJSON("/v1/events/wanted", `1`)))
		})
	}
}

// TestRepeat is promise P5: the same id or Idempotency-Key with the same
// content is one event, with other content a conflict.
func TestRepeat(t *testing.T) {
	const at = `,"time":"2026-11-21T10:00:00Z"`
	tests := map[string]struct {
		first, second *Request
		conflict      bool
		index         *int
	}{
		"id":                        {first: postJSON("/v1/events", `{"type":"a","data":{"x":1},"id":"i"`+at+`}`), second: postJSON("/v1/events", ` {"id":"i",`+at[1:]+`,"data":{"x":1},"type":"a"}`)},
		"id, other data":            {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), second: postJSON("/v1/events", `{"type":"a","data":2,"id":"i"}`), conflict: true},
		"id, other bytes":           {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), second: postJSON("/v1/events", `{"type":"a","data":1.0,"id":"i"}`), conflict: true},
		"id, other type":            {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), second: postJSON("/v1/events", `{"type":"b","data":1,"id":"i"}`), conflict: true},
		"id, now with a time":       {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), second: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"`+at+`}`), conflict: true},
		"id, other tenant":          {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","tenant":"x"}`), second: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","tenant":"y"}`), conflict: true},
		"id, other key":             {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","key":"x"}`), second: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","key":"y"}`), conflict: true},
		"id, tenant became key":     {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","tenant":"x"}`), second: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","key":"x"}`), conflict: true},
		"id, parts moved":           {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","tenant":"xy","key":"z"}`), second: postJSON("/v1/events", `{"type":"a","data":1,"id":"i","tenant":"x","key":"yz"}`), conflict: true},
		"id in a batch":             {first: postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), second: postJSON("/v1/events", `[{"type":"a","data":1},{"type":"a","data":2,"id":"i"}]`), conflict: true, index: new(1)},
		"key":                       {first: withKey(postJSON("/v1/events/a", `{"x":1}`), "k"), second: withKey(postJSON("/v1/events/a", `{"x":1}`), "k")},
		"key, by the other route":   {first: withKey(postJSON("/v1/events/a", `{"x":1}`), "k"), second: withKey(postJSON("/v1/events", `{"type":"a","data":{"x":1}}`), "k")},
		"key, other data":           {first: withKey(postJSON("/v1/events/a", `1`), "k"), second: withKey(postJSON("/v1/events/a", `2`), "k"), conflict: true},
		"key, now with an id":       {first: withKey(postJSON("/v1/events/a", `1`), "k"), second: withKey(postJSON("/v1/events", `{"type":"a","data":1,"id":"i"}`), "k"), conflict: true},
		"key, one more in a batch":  {first: withKey(postJSON("/v1/events", `[{"type":"a","data":1}]`), "k"), second: withKey(postJSON("/v1/events", `[{"type":"a","data":1},{"type":"a","data":1}]`), "k"), conflict: true},
		"key, batch in other order": {first: withKey(postJSON("/v1/events", `[{"type":"a","data":1},{"type":"a","data":2}]`), "k"), second: withKey(postJSON("/v1/events", `[{"type":"a","data":2},{"type":"a","data":1}]`), "k"), conflict: true},
		"key of a batch":            {first: withKey(postJSON("/v1/events", `[{"type":"a","data":1},{"type":"a","data":2}]`), "k"), second: withKey(post("/v1/events", "application/x-ndjson", "{\"type\":\"a\",\"data\":1}\n{\"type\":\"a\",\"data\":2}"), "k")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, _, _ := newIngest(t, Options{})
			first := wantAccepted(t, in.Handle(t.Context(), test.first))
			res := in.Handle(t.Context(), test.second)
			if test.conflict {
				if got := wantProblem(t, res, 409, "idempotency_conflict"); !cmp.Equal(got.Index, test.index) {
					t.Errorf("index %s, want %s", show(got.Index), show(test.index))
				}
				return
			}
			second := wantAccepted(t, res)
			if test.first.Path == "/v1/events" && first.Events != nil {
				first, second = first.Events[1], second.Events[1]
			}
			first.Duplicate = true
			if diff := cmp.Diff(first, second); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("an id and a key of the same letters are two", func(t *testing.T) {
		in, rec, _ := newIngest(t, Options{})
		wantAccepted(t, in.Handle(t.Context(), postJSON("/v1/events", `{"type":"a","data":1,"id":"x"}`)))
		if got := wantAccepted(t, in.Handle(t.Context(), withKey(postJSON("/v1/events/a", `2`), "x"))); got.Duplicate {
			t.Error("taken for a repeat")
		}
		if got := rec.batches[1].Key; got != "ingest:x" {
			t.Errorf("kept as %q, where others may keep theirs", got)
		}
	})
}

// TestOutboxFails: no 202 without the outbox's word (promise P4).
func TestOutboxFails(t *testing.T) {
	tests := map[string]struct {
		err    error
		status int
		code   string
	}{
		"full":        {err: fmt.Errorf("accept: %w", outbox.ErrFull), status: 507, code: "outbox_full"},
		"unavailable": {err: fmt.Errorf("accept: %w", outbox.ErrUnavailable), status: 503, code: "outbox_unavailable"},
		"closed":      {err: outbox.ErrClosed, status: 503, code: "outbox_unavailable"},
		"corrupt":     {err: outbox.ErrCorrupt, status: 503, code: "outbox_unavailable"},
		"unknown":     {err: errors.New("input/output error at s3cret"), status: 503, code: "outbox_unavailable"},
		"conflict":    {err: outbox.ErrConflict, status: 409, code: "idempotency_conflict"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, _, faulty := newIngest(t, Options{})
			faulty.Fail("Accept", test.err, 1)
			res := in.Handle(t.Context(), postJSON("/v1/events/a", "1"))
			wantProblem(t, res, test.status, test.code)
			if says := bytes.Contains(res.Body, []byte("the outbox or its disk is full; GET /readyz tells")); says != (name == "full") {
				t.Errorf("the answer: %s", res.Body)
			}
			if bytes.Contains(res.Body, []byte("s3cret")) {
				t.Errorf("the answer quotes the engine: %s", res.Body)
			}
			wantAccepted(t, in.Handle(t.Context(), postJSON("/v1/events/a", "1")))
		})
	}
	t.Run("stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			in, _, faulty := newIngest(t, Options{})
			faulty.Before("Accept", func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
			start := time.Now()
			wantProblem(t, in.Handle(t.Context(), postJSON("/v1/events/a", "1")), 503, "outbox_unavailable")
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("answered after %s, want 10s", took)
			}
		})
	})
}

// TestAppLeaves: the app went when its event was committed and not yet
// answered. The commit stands, and the repeat gets the first receipt.
func TestAppLeaves(t *testing.T) {
	var said bytes.Buffer
	in, rec, faulty := newIngest(t, Options{Log: zerolog.New(&said)})
	ctx, leave := context.WithCancel(t.Context())
	faulty.After("Accept", func(ctx context.Context, err error) error {
		leave()
		return ctx.Err()
	})
	wantProblem(t, in.Handle(ctx, withKey(postJSON("/v1/events/a", `1`), "k")), 503, "outbox_unavailable")
	if said.Len() > 0 {
		t.Errorf("the outbox was blamed: %s", &said)
	}

	faulty.After("Accept", nil)
	got := wantAccepted(t, in.Handle(t.Context(), withKey(postJSON("/v1/events/a", `1`), "k")))
	if !got.Duplicate || got.ID != rec.entries()[0].Event.ID {
		t.Errorf("got %+v, want a repeat of %s", got, rec.entries()[0].Event.ID)
	}
}

// TestWarnings: the first error of each code is logged, then one every 10
// seconds with the number of those between.
func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		in, _, faulty := newIngest(t, Options{Log: zerolog.New(&said)})
		for i := range 25 {
			err := outbox.ErrFull
			if i == 3 {
				err = outbox.ErrUnavailable
			}
			faulty.Fail("Accept", err, 1)
			in.Handle(t.Context(), postJSON("/v1/events/a", `"s3cret"`))
			time.Sleep(time.Second)
		}
		type line struct {
			Level, Component, Code, Error, Message string
			Status, Repeats                        int
		}
		var got []line
		for d := json.NewDecoder(&said); d.More(); {
			var l line
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			got = append(got, l)
		}
		full := func(repeated int) line {
			return line{"warn", "ingest", "outbox_full", "outbox is full", "not accepted", 507, repeated}
		}
		want := []line{full(0), {"warn", "ingest", "outbox_unavailable", "outbox is unavailable", "not accepted", 503, 0}, full(8), full(9)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDebugLine(t *testing.T) {
	var said bytes.Buffer
	in, _, _ := newIngest(t, Options{Log: zerolog.New(&said)})
	in.Handle(t.Context(), postJSON("/v1/events", `[{"type":"a","data":"s3cret","id":"one"},{"type":"a","data":1}]`))
	want := `{"level":"debug","component":"ingest","event_id":"one","events":2,"message":"accepted"}` + "\n"
	if diff := cmp.Diff(want, said.String()); diff != "" {
		t.Error(diff)
	}
}

// FuzzHandle: whatever comes in, there is no panic and no server error, and a
// 202 stands for events that are in the outbox as they came.
func FuzzHandle(f *testing.F) {
	f.Add("invoice.paid", "application/json", `{"a":1}`, "")
	f.Add("", "application/json", `{"type":"a","data":{"b":[1e9,null]},"id":"x","time":"2026-11-21T10:00:00Z"}`, "k")
	f.Add("", "application/json; charset=utf-8", ` [{"type":"a","data":1,"tenant":"t","key":"k"}]`, "")
	f.Add("", "application/x-ndjson", "{\"type\":\"a\",\"data\":1}\n\n{\"type\":\"b\",\"data\":2}\r\n", "k")
	f.Add("", "application/json", `{"type":"a","data":{"b":"\ud800"}}`, "")
	f.Add("", "application/json", `{"t\u0079pe":"a","data":"\ud83d\ude00"}`, "")
	f.Add("a", "text/plain", "\xff", " ")
	f.Add("a/b", "application/cloudevents+json", nested(70), "é")
	f.Add("", "application/cloudevents+json", specExample, "")
	f.Add("", "application/cloudevents+json", cloud(""), "")
	f.Add("", "application/cloudevents-batch+json", "["+cloud(`,"data":1`)+"]", "k")
	f.Fuzz(func(t *testing.T, eventType, contentType, body, key string) {
		in, rec, faulty := newIngest(t, Options{})
		r := post("/v1/events", contentType, body)
		if eventType != "" {
			r.Path += "/" + eventType
		}
		if key != "" {
			r.IdempotencyKey = []string{key}
		}
		res := in.Handle(t.Context(), r)
		if string(r.Body) != body {
			t.Fatal("the body was changed")
		}
		if res.Status != 202 {
			if res.Status < 400 || res.Status >= 500 || decodeAnswer(t, res.Body).Code == "" {
				t.Fatalf("got %d %s", res.Status, res.Body)
			}
			if len(rec.batches) > 0 && res.Status != 409 { // 409: an id twice in one batch
				t.Fatalf("refused with %d after the outbox was asked", res.Status)
			}
			return
		}
		got := decodeAnswer(t, res.Body)
		receipts := got.Events
		if receipts == nil {
			receipts = []answer{got}
		}
		if len(receipts) != len(rec.entries()) {
			t.Fatalf("%d receipts for %d events", len(receipts), len(rec.entries()))
		}
		for i, receipt := range receipts {
			record, err := faulty.Lookup(t.Context(), receipt.ID)
			if err != nil || receipt.ID != rec.entries()[i].Event.ID {
				t.Fatalf("receipt %+v: %v", receipt, err)
			}
			if data := record.Event.Data; !json.Valid(data) || !strings.Contains(body, string(data)) && string(data) != "null" {
				t.Fatalf("stored %q", data)
			}
		}
	})
}

// nowhere accepts everything and keeps nothing.
type nowhere struct{}

func (nowhere) Accept(_ context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	receipts := make([]outbox.Receipt, len(b.Entries))
	for i, e := range b.Entries {
		receipts[i] = outbox.Receipt{ID: e.Event.ID, Deliveries: len(e.Endpoints)}
	}
	return receipts, nil
}

func (nowhere) Durability() string { return "memory" }

// BenchmarkHandle is the cost of an event but for HTTP and the outbox.
func BenchmarkHandle(b *testing.B) {
	data := `{"customer":{"id":"cus_1","name":"Ada"},"lines":[` + strings.Repeat(`{"sku":"a-1","price":1250,"text":"a thing"},`, 20) + `{}]}`
	event := `{"type":"invoice.paid","data":` + data + `}`
	in := New(Options{Outbox: nowhere{}, Route: to("billing")})
	for name, r := range map[string]*Request{
		"single": postJSON("/v1/events", event),
		"typed":  postJSON("/v1/events/invoice.paid", data),
		"id":     postJSON("/v1/events", `{"id":"i",`+event[1:]),
		"lines":  post("/v1/events", "application/x-ndjson", strings.Repeat(event+"\n", 100)),
		"array":  postJSON("/v1/events", "["+strings.Repeat(event+",", 99)+event+"]"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(r.Body)))
			for b.Loop() {
				if res := in.Handle(b.Context(), r); res.Status != 202 {
					b.Fatal(string(res.Body))
				}
			}
		})
	}
}

var _ Appender = (*outboxtest.Mem)(nil)
