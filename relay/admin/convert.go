package admin

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

// millis is a duration in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

// delivery converts an item of a list.
func (l *lookout) delivery(i *outbox.Item) Delivery {
	d := &i.Delivery
	out := Delivery{
		ID: d.ID, Event: EventRef{ID: d.EventID, Type: i.Type, Tenant: i.Tenant, Key: i.Key, Time: i.Time.UTC()},
		Endpoint: d.Endpoint, State: string(d.State), Code: d.Code, Error: i.Error,
		Attempts: d.Attempts, MaxAttempts: maxAttempts(l.policy.Endpoint(d.Endpoint)),
		Created: d.Created.UTC(), RedeliveryOf: l.origin(i), Manual: d.Manual, Resent: i.Resent,
	}
	if d.State == outbox.Pending {
		at := l.of(d.Endpoint)
		out.NextAttempt = at.comes(d.Due).UTC()
		if !takes(at.state) {
			out.State = held
		}
		out.Waits = at.waits(d.Due, time.Now())
	} else if !d.Finished.IsZero() {
		out.Finished = d.Finished.UTC()
	}
	if a := i.Last; a != nil {
		out.Last = &Last{N: a.N, Started: a.Started.UTC(), TookMS: millis(a.Took), Status: a.Status, Code: a.Code, Relay: a.Relay}
	}
	return out
}

// held is the state of pending deliveries whose endpoint takes none.
const held = "held"

// maxAttempts is what the schedule of the endpoint allows; 0 if it is not known or not shown.
func maxAttempts(e *policy.Endpoint) int {
	if e == nil || e.Hides("retry") {
		return 0
	}
	return 1 + len(e.Retry.Due())
}

// itemOf is a record as an item of a list.
func itemOf(e *outbox.Event, d *outbox.DeliveryRecord) outbox.Item {
	i := outbox.Item{Delivery: d.Delivery, Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time, Fields: e.Fields, Error: d.Error}
	if n := len(d.Attempts); n > 0 {
		i.Last = &d.Attempts[n-1]
		if i.Error == "" {
			i.Error = i.Last.Error
		}
	}
	return i
}

func attempt(a *outbox.Attempt, manual bool) Attempt {
	out := Attempt{
		N: a.N, Started: a.Started.UTC(), TookMS: millis(a.Took),
		Timings: Timings{DNS: millis(a.Timing.DNS), Connect: millis(a.Timing.Connect), TLS: millis(a.Timing.TLS), FirstByte: millis(a.Timing.FirstByte), Total: millis(a.Took)},
		Reused:  a.Reused, Peer: a.Peer, Status: a.Status, Outcome: a.Outcome, Code: a.Code, Error: a.Error,
		Relay: a.Relay, Generation: a.Generation, Manual: manual,
	}
	_, out.RequestHeaders, _ = splitRequest(a.Request)
	if a.Status != 0 {
		out.Response = response(a)
	}
	if !a.Next.IsZero() {
		out.NextAttempt = a.Next.UTC()
	}
	return out
}

// splitRequest reads a record of a request: see outbox.Attempt.
func splitRequest(text string) (method string, headers []Header, url string) {
	first, rest, _ := strings.Cut(text, "\r\n")
	method, url, _ = strings.Cut(first, " ")
	return method, headerLines(rest), url
}

// headerLines reads lines that end with CRLF; the last one may be cut.
func headerLines(text string) []Header {
	all := []Header{}
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			all = append(all, Header{strings.ToValidUTF8(name, "\ufffd"), strings.ToValidUTF8(strings.TrimLeft(value, " "), "\ufffd")})
		}
	}
	return all
}

func response(a *outbox.Attempt) *Response {
	out := &Response{Headers: headerLines(a.Head), Body: string(a.Body), Truncated: a.Code == deliver.CodeBodyCut || a.Code == deliver.CodeBodyTimeout}
	if !utf8.Valid(a.Body) {
		if cut := cutRune(a.Body); utf8.Valid(cut) {
			out.Body = string(cut)
		} else {
			out.Body, out.Encoding = base64.StdEncoding.EncodeToString(a.Body), "base64"
		}
	}
	if len(a.Body) >= deliver.MaxKeptBody && lengthOf(out.Headers) != len(a.Body) {
		out.Truncated = true
	}
	return out
}

// cutRune is a body without the beginning of a character at its end, if it was cut there.
func cutRune(body []byte) []byte {
	if len(body) < deliver.MaxKeptBody {
		return body
	}
	for n := 1; n < utf8.UTFMax; n++ {
		if utf8.RuneStart(body[len(body)-n]) {
			return body[:len(body)-n]
		}
	}
	return body
}

// lengthOf is the Content-Length, -1 if there is none.
func lengthOf(headers []Header) int {
	for _, h := range headers {
		if strings.EqualFold(h.Name, "Content-Length") {
			if n, err := strconv.Atoi(h.Value); err == nil {
				return n
			}
		}
	}
	return -1
}

// sent is the request of the last attempt, with the body that the running policy makes; nil if
// nothing was sent.
func (l *lookout) sent(e *outbox.Event, d *outbox.DeliveryRecord, erased bool) *SentRequest {
	if len(d.Attempts) == 0 || d.Attempts[len(d.Attempts)-1].Request == "" {
		return nil
	}
	out := new(SentRequest)
	out.Method, out.Headers, out.URL = splitRequest(d.Attempts[len(d.Attempts)-1].Request)
	endpoint := l.policy.Endpoint(d.Endpoint)
	switch {
	case erased:
		out.Error = "the data of the event was erased, so its body cannot be made again"
		return out
	case endpoint == nil:
		out.Error = "the endpoint is not in the file that runs, so its body cannot be made again"
		return out
	}
	safe := *endpoint
	safe.Body = endpoint.Body.Masked()
	body, err := deliver.Body(&safe, e, d.ID)
	if err != nil {
		out.Error = "the file that runs cannot make the body: " + err.Error()
		return out
	}
	out.Body = &RebuiltBody{Text: string(body), Generation: l.generation, Batch: endpoint.Batch != nil}
	out.Body.MayDiffer = l.generation != d.Attempts[len(d.Attempts)-1].Generation
	return out
}

func (l *lookout) whole(r *outbox.Record) DeliveryWhole {
	l.asks = true
	d := &r.Deliveries[0]
	erased := !r.Erased.IsZero()
	item := itemOf(&r.Event, d)
	out := DeliveryWhole{Delivery: l.delivery(&item), Request: l.sent(&r.Event, d, erased), History: []Attempt{}}
	if erased {
		out.Erased = r.Erased.UTC()
	} else {
		out.Payload = json.RawMessage(r.Event.Data)
	}
	for i := range d.Attempts {
		out.History = append(out.History, attempt(&d.Attempts[i], d.Manual))
	}
	return out
}

// event shows a record from which what is foreign was left out.
func (l *lookout) event(r *outbox.Record) EventWhole {
	e := &r.Event
	out := EventWhole{
		EventRef: EventRef{ID: e.ID, Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time.UTC()},
		Accepted: r.Accepted.UTC(), Via: e.Via, Relay: e.Relay, Trace: e.Trace,
		Deliveries: []Delivery{}, Unwanted: len(r.Deliveries) == 0,
	}
	if r.Erased.IsZero() {
		out.Data = json.RawMessage(e.Data)
	} else {
		out.Erased = r.Erased.UTC()
	}
	for _, f := range e.Fields {
		if out.Indexed == nil {
			out.Indexed = map[string]string{}
		}
		out.Indexed[f.Path] = f.Value
	}
	l.asks, l.looks = true, 0 // all deliveries of the event are here
	repeats := map[string][]string{}
	for i := range r.Deliveries {
		l.origins[r.Deliveries[i].ID] = true
		if d := &r.Deliveries[i]; d.Origin != "" {
			repeats[d.Origin] = append(repeats[d.Origin], d.ID)
		}
	}
	for i := range r.Deliveries {
		item := itemOf(e, &r.Deliveries[i])
		d := l.delivery(&item)
		d.RedeliveredAs = repeats[d.ID]
		out.Deliveries = append(out.Deliveries, d)
	}
	return out
}
