package ingest

import (
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
)

const (
	cloudType      = "application/cloudevents+json"
	cloudBatchType = "application/cloudevents-batch+json"
)

// specExample is the first of section 3.2 of the JSON format, with an extension of ours.
const specExample = `{
    "specversion" : "1.0",
    "type" : "com.example.someevent",
    "source" : "/mycontext",
    "subject": null,
    "id" : "C234-1234-1234",
    "time" : "2018-04-05T17:31:00Z",
    "comexampleextension1" : "value",
    "comexampleothervalue" : 5,
    "tenant": "acme",
    "datacontenttype" : "application/json",
    "data" : {"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}
}`

// cloud is a structured CloudEvent with more members, or with others.
func cloud(members string) string {
	return `{"specversion":"1.0","id":"a-1","source":"/shop","type":"order.made"` + members + `}`
}

// headers is a CloudEvent in binary mode; attributes are pairs of a name and a value.
func headers(body string, attributes ...string) *Request {
	r := postJSON("/v1/events", body)
	given := append([]string{"specversion", "1.0", "id", "a-1", "source", "/shop", "type", "order.made"}, attributes...)
	for i := 0; i < len(given); i += 2 {
		r.Attributes = append(r.Attributes, Attribute{given[i], given[i+1]})
	}
	return r
}

func withType(r *Request, contentType string) *Request {
	r.ContentType = contentType
	return r
}

func TestCloudEvents(t *testing.T) {
	when := time.Date(2018, 4, 5, 17, 31, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		r    *Request
		want outbox.Event // a zero Time stands for any
	}{
		"structured": {post("/v1/events", cloudType, specExample), outbox.Event{
			ID: "C234-1234-1234", Type: "com.example.someevent", Time: when, Tenant: "acme", Data: []byte(`{"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}`)}},
		"structured, charset":          {post("/v1/events", cloudType+"; charset=UTF-8", cloud(`,"data":7`)), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("7")}},
		"lone surrogate":               {post("/v1/events", cloudType, cloud(`,"data":{"\ud83d":"\ude00"}`)), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte(`{"\ud83d":"\ude00"}`)}},
		"binary, lone surrogate":       {headers(`"\ud83d"`), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte(`"\ud83d"`)}},
		"subject":                      {post("/v1/events", cloudType, cloud(`,"data":"x","subject":"order-7"`)), outbox.Event{ID: "a-1", Type: "order.made", Key: "order-7", Data: []byte(`"x"`)}},
		"no data":                      {post("/v1/events", cloudType, cloud(``)), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("null")}},
		"data before its content type": {post("/v1/events", cloudType, cloud(`,"data":[1, 2],"datacontenttype":"text/json"`)), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("[1, 2]")}},
		"no data in base64":            {post("/v1/events", cloudType, cloud(`,"data_base64":null,"data":1`)), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("1")}},
		"structured, with headers too": {withType(headers(cloud(`,"data":1`), "id", "other"), cloudType), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("1")}},
		"id with dots":                 {post("/v1/events", cloudType, strings.Replace(cloud(``), "a-1", "a.1", 1)), outbox.Event{ID: "evt_597432823ae325838b1c98531198f1b9", Type: "order.made", Data: []byte("null")}},
		"binary": {headers(` {"a" : 1} `, "time", "2018-04-05T19:31:00+02:00", "subject", "Euro%20%E2%82%AC%20%F0%9F%98%80", "tenant", "acme", "traceparent", "00-0af7"),
			outbox.Event{ID: "a-1", Type: "order.made", Time: when, Key: "Euro € 😀", Tenant: "acme", Data: []byte(`{"a" : 1}`)}},
		"binary, quoted":           {headers("1", "subject", `"a \"b\" %41%25"`), outbox.Event{ID: "a-1", Type: "order.made", Key: `a "b" A%`, Data: []byte("1")}},
		"binary, not encoded":      {headers("1", "subject", "€"), outbox.Event{ID: "a-1", Type: "order.made", Key: "€", Data: []byte("1")}},
		"binary, other JSON":       {withType(headers("1"), "text/vnd.x+json"), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("1")}},
		"binary, no data":          {headers(""), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("null")}},
		"binary, no data, no type": {withType(headers(""), ""), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("null")}},
		"binary, an array is data": {headers("[]"), outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("[]")}},
		"binary, id percent-encoded": {&Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: []byte("1"), Attributes: []Attribute{
			{"specversion", "1.0"}, {"id", "%61-1"}, {"source", "/shop"}, {"type", "order.made"}}}, outbox.Event{ID: "a-1", Type: "order.made", Data: []byte("1")}},
	} {
		t.Run(name, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{})
			a := wantAccepted(t, in.Handle(t.Context(), c.r))
			got := rec.entries()[0].Event
			if c.want.Time.IsZero() {
				got.Time = time.Time{}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if a.ID != c.want.ID || a.Deliveries != 2 {
				t.Errorf("answer %+v", a)
			}
		})
	}
}

// The same CloudEvent again is known; another source with the same id never passes for it.
func TestCloudEventRepeated(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	send := func(body string) Response { return in.Handle(t.Context(), post("/v1/events", cloudType, body)) }
	wantAccepted(t, send(cloud(`,"data":1`)))
	if a := wantAccepted(t, send(cloud(`,"traceparent":"00-1","data":1`))); !a.Duplicate {
		t.Error("the repeat is not known")
	}
	if a := wantAccepted(t, in.Handle(t.Context(), headers("1"))); !a.Duplicate {
		t.Error("the repeat in binary mode is not known")
	}
	wantProblem(t, send(strings.Replace(cloud(`,"data":1`), "/shop", "/mall", 1)), 409, "idempotency_conflict")
	wantProblem(t, in.Handle(t.Context(), postJSON("/v1/events", `{"id":"a-1","type":"order.made","data":1}`)), 409, "idempotency_conflict")

	long := func(source string) string {
		return strings.NewReplacer("a-1", strings.Repeat("x", 65), "/shop", source).Replace(cloud(`,"data":1`))
	}
	first := wantAccepted(t, send(long("/shop")))
	if again := wantAccepted(t, send(long("/shop"))); !again.Duplicate || again.ID != first.ID {
		t.Errorf("the repeat is another event: %+v, %+v", first, again)
	}
	if other := wantAccepted(t, send(long("/mall"))); other.Duplicate || other.ID == first.ID {
		t.Errorf("another source is taken for a repeat: %+v, %+v", first, other)
	}
	if n := len(rec.entries()); n != 8 {
		t.Errorf("%d entries", n)
	}
}

func TestCloudEventBatch(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	second := strings.Replace(cloud(`,"data":2`), "a-1", "a-2", 1)
	a := wantAccepted(t, in.Handle(t.Context(), post("/v1/events", cloudBatchType, "["+cloud(`,"data":1`)+", "+second+"]")))
	if len(a.Events) != 2 || a.Events[0].ID != "a-1" || a.Events[1].ID != "a-2" {
		t.Errorf("answer %+v", a)
	}
	bad := wantProblem(t, in.Handle(t.Context(), post("/v1/events", cloudBatchType, "["+cloud("")+`,{"specversion":"1.0"}]`)), 400, "missing_field")
	if bad.Index == nil || *bad.Index != 1 || bad.Field != "id" {
		t.Errorf("answer %+v", bad)
	}
	one := strings.Repeat(","+cloud(""), maxBatch+1)[1:]
	wantProblem(t, in.Handle(t.Context(), post("/v1/events", cloudBatchType, "["+one+"]")), 413, "batch_too_large")
	wantProblem(t, in.Handle(t.Context(), post("/v1/events", cloudBatchType, "[]")), 400, "empty_batch")
	if n := len(rec.entries()); n != 2 {
		t.Errorf("%d entries of batches that were refused or not", n)
	}
}

func TestCloudEventRefused(t *testing.T) {
	without := func(name string) *Request {
		r := headers("1")
		for i, a := range r.Attributes {
			if a.Name == name {
				r.Attributes = append(r.Attributes[:i], r.Attributes[i+1:]...)
				break
			}
		}
		return r
	}
	structured := func(members string) *Request { return post("/v1/events", cloudType, cloud(members)) }
	replaced := func(from, to string) *Request {
		return post("/v1/events", cloudType, strings.Replace(cloud(`,"data":1`), from, to, 1))
	}
	for name, c := range map[string]struct {
		r           *Request
		status      int
		code, field string
	}{
		"older version":          {replaced(`"1.0"`, `"0.3"`), 400, "unsupported_specversion", "specversion"},
		"version is a number":    {replaced(`"1.0"`, `1.0`), 400, "invalid_attribute", "specversion"},
		"no version":             {without("specversion"), 400, "missing_field", "specversion"},
		"no id":                  {without("id"), 400, "missing_field", "id"},
		"no source":              {without("source"), 400, "missing_field", "source"},
		"no type":                {without("type"), 400, "missing_field", "type"},
		"null is not there":      {replaced(`"a-1"`, `null`), 400, "missing_field", "id"},
		"empty id":               {replaced(`"a-1"`, `""`), 400, "invalid_id", "id"},
		"empty source":           {replaced(`"/shop"`, `""`), 400, "invalid_attribute", "source"},
		"source is no URI":       {replaced(`"/shop"`, `"http://[x"`), 400, "invalid_attribute", "source"},
		"type with a slash":      {replaced(`"order.made"`, `"shop/order"`), 400, "invalid_type", "type"},
		"type of Relay's own":    {replaced(`"order.made"`, `"relay.x"`), 400, "invalid_type", "type"},
		"empty subject":          {structured(`,"subject":""`), 400, "invalid_key", "subject"},
		"long tenant":            {structured(`,"tenant":"` + strings.Repeat("x", 256) + `"`), 400, "invalid_tenant", "tenant"},
		"time":                   {structured(`,"time":"yesterday"`), 400, "invalid_time", "time"},
		"lone surrogate, id":     {post("/v1/events", cloudType, strings.Replace(cloud(``), "a-1", `\ud83d`, 1)), 400, "invalid_utf8", "id"},
		"lone surrogate, source": {post("/v1/events", cloudType, strings.Replace(cloud(``), "/shop", `/\ud83d`, 1)), 400, "invalid_utf8", "source"},
		"lone surrogate":         {structured(`,"subject":"\ude00"`), 400, "invalid_utf8", "subject"},
		"lone surrogate, other":  {structured(`,"myattribute":"\ude00"`), 400, "invalid_utf8", "myattribute"},
		"time out of range":      {structured(`,"time":"0001-01-01T00:00:00Z"`), 400, "out_of_range", "time"},
		"time is a number":       {structured(`,"time":17`), 400, "invalid_attribute", "time"},
		"base64":                 {structured(`,"data_base64":"AA=="`), 415, "unsupported_data", "data_base64"},
		"XML":                    {structured(`,"datacontenttype":"text/xml","data":"<much wow=\"xml\"/>"`), 415, "unsupported_data", "datacontenttype"},
		"other charset":          {structured(`,"datacontenttype":"application/json; charset=latin1","data":1`), 415, "unsupported_data", "datacontenttype"},
		"XML in binary mode":     {withType(headers("<a/>"), "text/xml"), 415, "unsupported_data", "datacontenttype"},
		"no type of data":        {withType(headers("1"), ""), 415, "unsupported_media_type", ""},
		"Avro":                   {post("/v1/events", "application/cloudevents+avro", "x"), 415, "unsupported_media_type", ""},
		"attribute is an object": {structured(`,"extra":{}`), 400, "invalid_attribute", "extra"},
		"name with a capital":    {structured(`,"partitionKey":"x"`), 400, "unknown_field", ""},
		"name with a dash":       {headers("1", "trace-id", "x"), 400, "unknown_field", ""},
		"twice":                  {headers("1", "subject", "x", "subject", "x"), 400, "duplicate_key", "subject"},
		"twice in the body":      {structured(`,"id":"b"`), 400, "duplicate_key", ""},
		"broken encoding":        {headers("1", "subject", "100%"), 400, "invalid_attribute", "subject"},
		"open quote":             {headers("1", "subject", `"abc\`), 400, "invalid_attribute", "subject"},
		"text behind a quote":    {headers("1", "subject", `"a" b`), 400, "invalid_attribute", "subject"},
		"not UTF-8":              {headers("1", "subject", "%ff"), 400, "invalid_attribute", "subject"},
		"data is not JSON":       {headers("{"), 400, "invalid_json", ""},
		"data is too deep":       {headers(nested(65)), 400, "too_deep", ""},
		"too deep":               {structured(`,"data":` + nested(65)), 400, "too_deep", ""},
		"an array":               {post("/v1/events", cloudType, "["+cloud("")+"]"), 400, "invalid_event", ""},
		"no array":               {post("/v1/events", cloudBatchType, cloud("")), 400, "invalid_event", ""},
		"broken":                 {post("/v1/events", cloudBatchType, "{"), 400, "invalid_json", ""},
		"no body":                {post("/v1/events", cloudType, ""), 400, "empty_body", ""},
		"two":                    {post("/v1/events", cloudType, cloud("")+cloud("")), 400, "invalid_json", ""},
	} {
		t.Run(name, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{})
			res := in.Handle(t.Context(), c.r)
			if c.status == 202 {
				wantAccepted(t, res)
				return
			}
			a := wantProblem(t, res, c.status, c.code)
			if a.Field != c.field {
				t.Errorf("field %q, want %q", a.Field, c.field)
			}
			if len(rec.entries()) > 0 {
				t.Error("it reached the outbox")
			}
		})
	}
}

// FuzzCloudHeaders: attributes never end in a server error, and what the HTTP binding
// makes of a value is read as that value.
func FuzzCloudHeaders(f *testing.F) {
	f.Add("subject", "Euro%20%E2%82%AC", "1")
	f.Add("id", `"a\"b"`, "")
	f.Add("time", "2018-04-05T17:31:00Z", "[]")
	f.Add("comexample", "%", "{")
	f.Fuzz(func(t *testing.T, name, value, body string) {
		in, rec, _ := newIngest(t, Options{})
		r := headers(body)
		r.Attributes = append(r.Attributes[1:], Attribute{name, value}, r.Attributes[0])
		res := in.Handle(t.Context(), r)
		if res.Status != 202 && (res.Status < 400 || res.Status >= 500 || decodeAnswer(t, res.Body).Code == "" || len(rec.entries()) > 0) {
			t.Fatalf("got %d %s with %d entries", res.Status, res.Body, len(rec.entries()))
		}
		if got, err := headerValue(url.PathEscape(value)); utf8.ValidString(value) && (err != nil || got != value) {
			t.Fatalf("%q is read as %q, %v", value, got, err)
		}
	})
}
