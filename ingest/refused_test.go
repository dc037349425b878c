package ingest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRefused goes through the catalogue of bad inputs: each is refused with
// its code, nothing reaches the outbox, and the answer does not quote the data.
func TestRefused(t *testing.T) {
	const canary = "s3cret-payload"
	event := func(fields string) string {
		return `{"type":"invoice.paid","data":{"card":"` + canary + `"}` + fields + `}`
	}
	typed := "/v1/events/invoice.paid"

	tests := map[string]struct {
		r      *Request
		status int
		code   string
		want   answer // the members that matter: Field, Line, Index, Offset, and a part of Detail
	}{
		"B1 empty body":                     {r: postJSON("/v1/events", ""), status: 400, code: "empty_body"},
		"B1 only whitespace":                {r: postJSON("/v1/events", " \r\n\t"), status: 400, code: "empty_body"},
		"B1 empty data":                     {r: postJSON(typed, ""), status: 400, code: "empty_body"},
		"B1 blank lines":                    {r: post("/v1/events", "application/x-ndjson", "\n \n"), status: 400, code: "empty_body"},
		"B1 empty array":                    {r: postJSON("/v1/events", " [ ]"), status: 400, code: "empty_batch"},
		"B2 not JSON":                       {r: postJSON("/v1/events", "hello"), status: 400, code: "invalid_json", want: answer{Offset: new(0)}},
		"B2 NaN":                            {r: postJSON(typed, `{"a":NaN}`), status: 400, code: "invalid_json", want: answer{Offset: new(5)}},
		"B2 trailing data":                  {r: postJSON("/v1/events", event("")+" x"), status: 400, code: "invalid_json", want: answer{Offset: new(len(event("")) + 1)}},
		"B2 two values":                     {r: postJSON(typed, `{} {}`), status: 400, code: "invalid_json", want: answer{Offset: new(3)}},
		"B2 byte order mark":                {r: postJSON("/v1/events", "\uFEFF"+event("")), status: 400, code: "invalid_json", want: answer{Offset: new(0), Detail: "byte order mark"}},
		"B2 cut short":                      {r: postJSON("/v1/events", `{"type":"invoice.paid","data":{"a":`), status: 400, code: "invalid_json", want: answer{Offset: new(35), Detail: "ends early"}},
		"B2 trailing comma":                 {r: postJSON("/v1/events", `{"type":"invoice.paid","data":1,}`), status: 400, code: "invalid_json"},
		"B2 trailing comma in a batch":      {r: postJSON("/v1/events", `[`+event("")+`,]`), status: 400, code: "invalid_json", want: answer{Index: new(1)}},
		"B2 missing comma in a batch":       {r: postJSON("/v1/events", `[`+event("")+event("")+`]`), status: 400, code: "invalid_json", want: answer{Index: new(1)}},
		"B2 batch not closed":               {r: postJSON("/v1/events", `[`+event("")), status: 400, code: "invalid_json", want: answer{Index: new(1), Detail: "ends early"}},
		"B2 text behind a batch":            {r: postJSON("/v1/events", `[`+event("")+`]]`), status: 400, code: "invalid_json"},
		"B2 wrong bracket":                  {r: postJSON("/v1/events", `{"type":"a","data":1]`), status: 400, code: "invalid_json"},
		"B2 name without quotes":            {r: postJSON("/v1/events", `{type:"a","data":1}`), status: 400, code: "invalid_json"},
		"B2 name is a number":               {r: postJSON("/v1/events", `{1:"a","data":1}`), status: 400, code: "invalid_json"},
		"B2 control character":              {r: postJSON(typed, "\"a\x01\""), status: 400, code: "invalid_json", want: answer{Offset: new(2)}},
		"B2 bad escape":                     {r: postJSON(typed, `"\x"`), status: 400, code: "invalid_json"},
		"B2 scalar event":                   {r: postJSON("/v1/events", `"invoice.paid"`), status: 400, code: "invalid_event"},
		"B2 scalar in a batch":              {r: postJSON("/v1/events", `[`+event("")+`, 7]`), status: 400, code: "invalid_event", want: answer{Index: new(1)}},
		"B3 duplicate envelope key":         {r: postJSON("/v1/events", event(`,"type":"other"`)), status: 400, code: "duplicate_key", want: answer{Detail: `"type"`}},
		"B3 duplicate key in data":          {r: postJSON(typed, `{"a":{"amount":1,"b":2,"amount":3}}`), status: 400, code: "duplicate_key", want: answer{Detail: `"amount"`}},
		"B3 duplicate by escape":            {r: postJSON(typed, `{"a":1,"\u0061":2}`), status: 400, code: "duplicate_key", want: answer{Detail: `"a"`}},
		"B3 endless duplicate key":          {r: postJSON(typed, `{"`+strings.Repeat("k", 9999)+`":1,"`+strings.Repeat("k", 9999)+`":2}`), status: 400, code: "duplicate_key"},
		"B4 key of another case":            {r: postJSON("/v1/events", event(`,"TYPE":"other"`)), status: 400, code: "unknown_field", want: answer{Detail: `did you mean "type"?`}},
		"B4 misspelt key":                   {r: postJSON("/v1/events", event(`,"tennant":"x"`)), status: 400, code: "unknown_field", want: answer{Detail: `did you mean "tenant"?`}},
		"B4 foreign key":                    {r: postJSON("/v1/events", event(`,"payload":{}`)), status: 400, code: "unknown_field", want: answer{Detail: `type, data, id, time, tenant and key`}},
		"B4 endless key":                    {r: postJSON("/v1/events", event(`,"`+strings.Repeat("x", 9999)+`":{}`)), status: 400, code: "unknown_field"},
		"B5 invalid UTF-8":                  {r: postJSON(typed, "{\"a\":\"b\xff\"}"), status: 400, code: "invalid_utf8", want: answer{Offset: new(7)}},
		"B5 invalid UTF-8 in a key":         {r: postJSON(typed, "{\"a\xc0\":1}"), status: 400, code: "invalid_utf8", want: answer{Offset: new(3)}},
		"B5 invalid UTF-8 outside a string": {r: postJSON(typed, "{\"a\":\xff}"), status: 400, code: "invalid_utf8", want: answer{Offset: new(5)}},
		"B5 surrogate as UTF-8":             {r: postJSON(typed, "\"\xed\xa0\x80\""), status: 400, code: "invalid_utf8"},
		"B5 lone surrogate and other bytes": {r: postJSON(typed, "[\"\\ud83d\",\"\xff\"]"), status: 400, code: "invalid_utf8", want: answer{Offset: new(11)}},
		"B5 lone surrogate in a type":       {r: postJSON("/v1/events", `{"type":"a\udc00","data":1}`), status: 400, code: "invalid_utf8", want: answer{Field: "type", Offset: new(10)}},
		"B5 lone surrogate in an id":        {r: postJSON("/v1/events", event(`,"id":"\udc00"`)), status: 400, code: "invalid_utf8", want: answer{Field: "id"}},
		"B5 lone surrogate in a key":        {r: postJSON("/v1/events", event(`,"key":"\ud83d\ud83d"`)), status: 400, code: "invalid_utf8", want: answer{Field: "key"}},
		"B5 lone surrogate in a line's key": {r: post("/v1/events", "application/x-ndjson", event(``)+"\n"+event(`,"key":"\ud83d"`)), status: 400, code: "invalid_utf8", want: answer{Field: "key", Index: new(1), Line: 2}},
		"B5 lone surrogate as a field":      {r: postJSON("/v1/events", event(`,"\ud83d":1`)), status: 400, code: "unknown_field"},
		"B4 lone surrogate twice as a key":  {r: postJSON(typed, `{"\ud83d":1,"a":{"\ud83d":1},"\uD83D":2}`), status: 400, code: "duplicate_key", want: answer{Offset: new(29)}},
		"B4 twice behind a lone surrogate":  {r: postJSON("/v1/events", `[`+event(``)+`,{"type":"a","data":["\ud83d",{"a":1,"\u0061":2}]}]`), status: 400, code: "duplicate_key"},
		"B4 twice in an event":              {r: postJSON("/v1/events", event(`,"data":"\ud83d"`)), status: 400, code: "duplicate_key"},
		"B5 lone low surrogate":             {r: postJSON("/v1/events", event(`,"tenant":"\uDE00"`)), status: 400, code: "invalid_utf8", want: answer{Field: "tenant"}},
		"B6 65 deep":                        {r: postJSON(typed, nested(65)), status: 400, code: "too_deep", want: answer{Offset: new(64)}},
		"B6 65 deep in an event":            {r: postJSON("/v1/events", `{"type":"a","data":`+nested(65)+`}`), status: 400, code: "too_deep"},
		"B6 65 deep in a batch":             {r: postJSON("/v1/events", `[{"type":"a","data":`+nested(65)+`}]`), status: 400, code: "too_deep"},
		"B6 65 deep in a line":              {r: post("/v1/events", "application/x-ndjson", "\n"+`{"type":"a","data":`+nested(65)+`}`), status: 400, code: "too_deep", want: answer{Index: new(0), Line: 2, Offset: new(1 + 19 + 64)}},
		"B6 10,001 deep objects":            {r: postJSON(typed, strings.Repeat(`{"a":`, 10001)+"1"+strings.Repeat("}", 10001)), status: 400, code: "too_deep", want: answer{Offset: new(5 * 64)}},
		"B6 a million deep":                 {r: postJSON(typed, strings.Repeat("[", 1e6)), status: 400, code: "too_deep", want: answer{Offset: new(64)}},
		"B7 huge number in the envelope":    {r: postJSON("/v1/events", event(`,"id":1e999999`)), status: 400, code: "out_of_range", want: answer{Field: "id"}},
		"B7 huge number as time":            {r: postJSON("/v1/events", event(`,"time":1`+strings.Repeat("0", 400))), status: 400, code: "out_of_range", want: answer{Field: "time"}},
		"B7 time before the years":          {r: postJSON("/v1/events", event(`,"time":"0001-01-01T00:00:00Z"`)), status: 400, code: "out_of_range", want: answer{Field: "time"}},
		"B7 time behind the years":          {r: postJSON("/v1/events", event(`,"time":"9999-12-31T23:59:59-01:00"`)), status: 400, code: "out_of_range", want: answer{Field: "time"}},
		"B9 gzip":                           {r: &Request{Method: "POST", Path: typed, ContentType: "application/json", ContentEncoding: "gzip", Body: []byte("{}")}, status: 415, code: "unsupported_encoding"},
		"B10 no content type":               {r: post(typed, "", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 text":                          {r: post(typed, "text/plain", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 text that says JSON":           {r: post(typed, "text/plain; application/json", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 form":                          {r: post(typed, "application/x-www-form-urlencoded", "a=b"), status: 415, code: "unsupported_media_type"},
		"B10 other charset":                 {r: post(typed, "application/json; charset=latin1", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 lines as data":                 {r: post(typed, "application/x-ndjson", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 a suffix of another tree":      {r: post(typed, "image/svg+json", "{}"), status: 415, code: "unsupported_media_type"},
		"B10 CloudEvent under a type":       {r: post(typed, "application/cloudevents+json", "{}"), status: 415, code: "unsupported_media_type", want: answer{Detail: "/v1/events"}},
		"B10 CloudEvent in headers":         {r: &Request{Method: "POST", Path: typed, ContentType: "application/json", Attributes: []Attribute{{"id", "1"}}, Body: []byte("{}")}, status: 415, code: "unsupported_media_type"},
		"B14 GET":                           {r: &Request{Method: "GET", Path: "/v1/events"}, status: 405, code: "method_not_allowed"},
		"B14 PUT":                           {r: &Request{Method: "PUT", Path: typed}, status: 405, code: "method_not_allowed"},
		"B14 unknown path":                  {r: postJSON("/v1/event", "{}"), status: 404, code: "not_found"},
		"B14 path below a type":             {r: postJSON(typed+"/x", "{}"), status: 404, code: "not_found"},
		"B14 asterisk":                      {r: &Request{Method: "OPTIONS", Path: "*"}, status: 404, code: "not_found"},
		"B18 empty type in the path":        {r: postJSON("/v1/events/", "{}"), status: 400, code: "invalid_type", want: answer{Field: "type"}},
		"B18 empty type":                    {r: postJSON("/v1/events", `{"type":"","data":1}`), status: 400, code: "invalid_type", want: answer{Field: "type"}},
		"B18 type of 300":                   {r: postJSON("/v1/events/"+strings.Repeat("a", 300), "{}"), status: 400, code: "invalid_type", want: answer{Detail: "1 to 128"}},
		"B18 type of 129":                   {r: postJSON("/v1/events", `{"type":"`+strings.Repeat("a", 129)+`","data":1}`), status: 400, code: "invalid_type"},
		"B18 control character":             {r: postJSON("/v1/events", `{"type":"a\u0000b","data":1}`), status: 400, code: "invalid_type", want: answer{Detail: "A-Z a-z 0-9 _ . -"}},
		"B18 dot at the end":                {r: postJSON("/v1/events/invoice.", "{}"), status: 400, code: "invalid_type"},
		"B18 dot at the start":              {r: postJSON("/v1/events", `{"type":".paid","data":1}`), status: 400, code: "invalid_type", want: answer{Offset: new(8)}},
		"type of Relay's own":               {r: postJSON("/v1/events/relay.breaker.opened", "{}"), status: 400, code: "invalid_type", want: answer{Detail: "relay"}},
		"type of Relay's own in the event":  {r: postJSON("/v1/events", `{"type":"relay","data":1}`), status: 400, code: "invalid_type"},
		"B18 type is a number":              {r: postJSON("/v1/events", `{"type":7,"data":1}`), status: 400, code: "invalid_type"},
		"B18 type is null":                  {r: postJSON("/v1/events", `{"type":null,"data":1}`), status: 400, code: "missing_field", want: answer{Field: "type"}},
		"B18 no type":                       {r: postJSON("/v1/events", `{"data":1}`), status: 400, code: "missing_field", want: answer{Field: "type"}},
		"no data":                           {r: postJSON("/v1/events", `{"type":"a"}`), status: 400, code: "missing_field", want: answer{Field: "data"}},
		"B19 id with a dot":                 {r: postJSON("/v1/events", event(`,"id":"evt_1.1700000000"`)), status: 400, code: "invalid_id", want: answer{Field: "id"}},
		"B19 id with a newline":             {r: postJSON("/v1/events", event(`,"id":"a\nb"`)), status: 400, code: "invalid_id"},
		"B19 id of 65":                      {r: postJSON("/v1/events", event(`,"id":"`+strings.Repeat("a", 65)+`"`)), status: 400, code: "invalid_id", want: answer{Detail: "1 to 64"}},
		"B19 empty id":                      {r: postJSON("/v1/events", event(`,"id":""`)), status: 400, code: "invalid_id"},
		"B19 id is an object":               {r: postJSON("/v1/events", event(`,"id":{}`)), status: 400, code: "invalid_id", want: answer{Detail: "id is a string"}},
		"time is not RFC 3339":              {r: postJSON("/v1/events", event(`,"time":"2026-11-21 10:00"`)), status: 400, code: "invalid_time", want: answer{Field: "time"}},
		"time without zone":                 {r: postJSON("/v1/events", event(`,"time":"2026-11-21T10:00:00"`)), status: 400, code: "invalid_time"},
		"time is a number":                  {r: postJSON("/v1/events", event(`,"time":1700000000`)), status: 400, code: "invalid_time"},
		"empty tenant":                      {r: postJSON("/v1/events", event(`,"tenant":""`)), status: 400, code: "invalid_tenant", want: answer{Field: "tenant"}},
		"tenant of 256":                     {r: postJSON("/v1/events", event(`,"tenant":"`+strings.Repeat("t", 256)+`"`)), status: 400, code: "invalid_tenant"},
		"key with a newline":                {r: postJSON("/v1/events", event(`,"key":"a\nb"`)), status: 400, code: "invalid_key", want: answer{Field: "key"}},
		"idempotency key twice":             {r: withKey(postJSON(typed, "{}"), "a", "a"), status: 400, code: "invalid_idempotency_key"},
		"idempotency key empty":             {r: withKey(postJSON(typed, "{}"), ""), status: 400, code: "invalid_idempotency_key"},
		"idempotency key of 256":            {r: withKey(postJSON(typed, "{}"), strings.Repeat("k", 256)), status: 400, code: "invalid_idempotency_key"},
		"idempotency key with a space":      {r: withKey(postJSON(typed, "{}"), "a b"), status: 400, code: "invalid_idempotency_key"},
		"idempotency key not ASCII":         {r: withKey(postJSON(typed, "{}"), "schlüssel"), status: 400, code: "invalid_idempotency_key"},
		"B22 one bad of 100 lines":          {r: post("/v1/events", "application/x-ndjson", lines(49)+"\n"+`{"type":"a"}`+"\n"+lines(50)), status: 400, code: "missing_field", want: answer{Index: new(49), Line: 51, Field: "data"}},
		"B22 bad JSON in a line":            {r: post("/v1/events", "application/jsonl", "{\"type\":\"a\",\"data\":1}\r\n\r\n{\"type\":}\n"), status: 400, code: "invalid_json", want: answer{Index: new(1), Line: 3, Offset: new(33)}},
		"B22 an event over two lines":       {r: post("/v1/events", "application/x-ndjson", "{\"type\":\"a\",\n\"data\":1}"), status: 400, code: "invalid_json", want: answer{Index: new(0), Line: 1}},
		"B22 two events in a line":          {r: post("/v1/events", "application/x-ndjson", event("")+event("")), status: 400, code: "invalid_json", want: answer{Index: new(0), Line: 1, Offset: new(len(event("")))}},
		"B22 one bad in an array":           {r: postJSON("/v1/events", "["+event("")+","+event(`,"id":"."`)+"]"), status: 400, code: "invalid_id", want: answer{Index: new(1), Field: "id"}},
		"B22 1,001 lines":                   {r: post("/v1/events", "application/x-ndjson", lines(1001)), status: 413, code: "batch_too_large"},
		"B22 array of 1,001":                {r: postJSON("/v1/events", "["+strings.Repeat(event("")+",", 1000)+event("")+"]"), status: 413, code: "batch_too_large"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{})
			res := in.Handle(t.Context(), test.r)
			got := wantProblem(t, res, test.status, test.code)
			if test.want.Field != "" && got.Field != test.want.Field {
				t.Errorf("field %q, want %q", got.Field, test.want.Field)
			}
			if test.want.Offset != nil && !cmp.Equal(got.Offset, test.want.Offset) {
				t.Errorf("offset %s, want %d", show(got.Offset), *test.want.Offset)
			}
			if !cmp.Equal(got.Index, test.want.Index) || got.Line != test.want.Line {
				t.Errorf("index %s line %d, want %s and %d", show(got.Index), got.Line, show(test.want.Index), test.want.Line)
			}
			if !strings.Contains(got.Detail, test.want.Detail) {
				t.Errorf("detail %q, want %q in it", got.Detail, test.want.Detail)
			}
			if strings.Contains(string(res.Body), canary) || len(res.Body) > 600 {
				t.Errorf("the answer quotes the request: %s", res.Body)
			}
			if n := len(rec.entries()); n != 0 {
				t.Errorf("%d events reached the outbox", n)
			}
		})
	}
}

func show(n *int) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}

func withKey(r *Request, keys ...string) *Request {
	r.IdempotencyKey = keys
	return r
}
