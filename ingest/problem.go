package ingest

import (
	"encoding/json"
	"strconv"
)

// code is the stable name of why a request was refused.
type code string

// The codes. They are part of the API: a name is never reused or changed.
const (
	invalidRequest         code = "invalid_request"
	expectationFailed      code = "expectation_failed"
	unsupportedCoding      code = "unsupported_coding"
	emptyBody              code = "empty_body"
	invalidBody            code = "invalid_body"
	bodyTooLarge           code = "body_too_large"
	requestTimeout         code = "request_timeout"
	invalidJSON            code = "invalid_json"
	invalidUTF8            code = "invalid_utf8"
	duplicateKey           code = "duplicate_key"
	tooDeep                code = "too_deep"
	invalidEvent           code = "invalid_event"
	unknownField           code = "unknown_field"
	missingField           code = "missing_field"
	outOfRange             code = "out_of_range"
	invalidType            code = "invalid_type"
	invalidID              code = "invalid_id"
	invalidTime            code = "invalid_time"
	invalidTenant          code = "invalid_tenant"
	invalidKey             code = "invalid_key"
	invalidIdempotencyKey  code = "invalid_idempotency_key"
	idempotencyConflict    code = "idempotency_conflict"
	emptyBatch             code = "empty_batch"
	batchTooLarge          code = "batch_too_large"
	invalidAttribute       code = "invalid_attribute"
	unsupportedSpecVersion code = "unsupported_specversion"
	unsupportedData        code = "unsupported_data"
	schemaMismatch         code = "schema_mismatch"
	unknownType            code = "unknown_type"
	noEndpoint             code = "no_endpoint"
	unsupportedEncoding    code = "unsupported_encoding"
	unsupportedMediaType   code = "unsupported_media_type"
	notFound               code = "not_found"
	methodNotAllowed       code = "method_not_allowed"
	missingHost            code = "missing_host"
	unknownHost            code = "unknown_host"
	crossOrigin            code = "cross_origin"
	unauthorized           code = "unauthorized"
	headerTooLarge         code = "header_too_large"
	tooManyHeaders         code = "too_many_headers"
	outboxFull             code = "outbox_full"
	outboxUnavailable      code = "outbox_unavailable"
	overloaded             code = "overloaded"
	internalError          code = "internal_error"
)

// codes is the one place where a code gets its status, its title and what
// else the answer carries.
var codes = map[code]struct {
	status     int
	title      string
	retryAfter int // seconds
	close      bool
}{
	invalidRequest:         {status: 400, title: "The request is malformed", close: true},
	expectationFailed:      {status: 417, title: "The expectation cannot be met", close: true},
	unsupportedCoding:      {status: 501, title: "The transfer coding is not supported", close: true},
	emptyBody:              {status: 400, title: "The body is empty"},
	invalidBody:            {status: 400, title: "The body did not come whole", close: true},
	bodyTooLarge:           {status: 413, title: "The body is too large", close: true},
	requestTimeout:         {status: 408, title: "The request did not come in time", close: true},
	invalidJSON:            {status: 400, title: "The body is not valid JSON"},
	invalidUTF8:            {status: 400, title: "The body is not valid UTF-8"},
	duplicateKey:           {status: 400, title: "An object has the same key twice"},
	tooDeep:                {status: 400, title: "The data is nested too deeply"},
	invalidEvent:           {status: 400, title: "An event is not an object"},
	unknownField:           {status: 400, title: "An event has an unknown field"},
	missingField:           {status: 400, title: "An event lacks a field"},
	outOfRange:             {status: 400, title: "A value is out of range"},
	invalidType:            {status: 400, title: "The event type is not valid"},
	invalidID:              {status: 400, title: "The event id is not valid"},
	invalidTime:            {status: 400, title: "The event time is not valid"},
	invalidTenant:          {status: 400, title: "The tenant is not valid"},
	invalidKey:             {status: 400, title: "The event key is not valid"},
	invalidIdempotencyKey:  {status: 400, title: "The Idempotency-Key is not valid"},
	idempotencyConflict:    {status: 409, title: "The key was used before with other content"},
	emptyBatch:             {status: 400, title: "The batch is empty"},
	batchTooLarge:          {status: 413, title: "The batch has too many events"},
	invalidAttribute:       {status: 400, title: "An attribute of the CloudEvent is not valid"},
	unsupportedSpecVersion: {status: 400, title: "The version of CloudEvents is not supported"},
	unsupportedData:        {status: 415, title: "The data is not JSON"},
	schemaMismatch:         {status: 422, title: "The data does not fit the schema of its type"},
	unknownType:            {status: 422, title: "The event type is not declared"},
	noEndpoint:             {status: 422, title: "No endpoint wants the event"},
	unsupportedEncoding:    {status: 415, title: "The content encoding is not supported"},
	unsupportedMediaType:   {status: 415, title: "The content type is not supported"},
	notFound:               {status: 404, title: "There is nothing at this path"},
	methodNotAllowed:       {status: 405, title: "The method is not allowed"},
	missingHost:            {status: 400, title: "The Host header is missing"},
	unknownHost:            {status: 421, title: "The Host header names another server"},
	crossOrigin:            {status: 403, title: "Requests from web pages are refused"},
	unauthorized:           {status: 401, title: "The bearer token is missing or wrong"},
	headerTooLarge:         {status: 431, title: "The header is too large", close: true},
	tooManyHeaders:         {status: 431, title: "The request has too many headers", close: true},
	outboxFull:             {status: 507, title: "The outbox is full", retryAfter: 30},
	outboxUnavailable:      {status: 503, title: "The outbox is unavailable", retryAfter: 2},
	overloaded:             {status: 503, title: "Too many requests at once", retryAfter: 1, close: true},
	internalError:          {status: 500, title: "Relay met an error of its own", close: true},
}

// problem is the body of a refusal (RFC 9457). It never holds a payload or a
// secret: at most the name of a key, cut short.
type problem struct {
	Type    string `json:"type"` // a name, not an address to fetch
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Code    code   `json:"code"`
	Detail  string `json:"detail"`
	Field   string `json:"field,omitempty"`
	Pointer string `json:"pointer,omitempty"` // into the data, RFC 6901; "" for all of it
	Keyword string `json:"keyword,omitempty"` // of the schema
	Index   *int   `json:"index,omitempty"`   // of the event in a batch, from 0
	Line    int    `json:"line,omitempty"`    // of the body, from 1
	Offset  *int   `json:"offset,omitempty"`  // of the byte in the body, from 0

	fatal bool // the connection cannot be used again, whatever the code says
}

// refuse makes a problem.
func refuse(c code, detail string) *problem {
	return &problem{
		Type:   "urn:relay:problem:" + string(c),
		Title:  codes[c].title,
		Status: codes[c].status,
		Code:   c,
		Detail: detail,
	}
}

// malformed refuses a request that cannot be read, or not in one way only.
func malformed(detail string) *problem { return refuse(invalidRequest, detail) }

// tooMany refuses a request for the number of its headers.
func tooMany() *problem {
	return refuse(tooManyHeaders, "a request has at most "+strconv.Itoa(maxHeaders)+" headers")
}

// response is the answer that carries the problem.
func (p *problem) response() Response {
	about := codes[p.Code]
	r := Response{
		Status:      about.status,
		ContentType: "application/problem+json",
		RetryAfter:  about.retryAfter,
		Close:       about.close || p.fatal,
	}
	switch p.Code {
	case methodNotAllowed:
		r.Allow = "POST"
	case unauthorized:
		r.Challenge = `Bearer realm="relay"`
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic("ingest: problem cannot be written: " + err.Error()) // strings and numbers always can
	}
	r.Body = append(body, '\n')
	return r
}
