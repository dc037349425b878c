// Package problem is the refusals of every HTTP surface: the body of RFC 9457, and the one table
// that gives each code its status.
package problem

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// ContentType of a problem's body (RFC 9457, section 3).
const ContentType = "application/problem+json"

// Code is the stable name of a reason to refuse a request.
type Code string

// The codes. They are part of the API: a name is never reused or changed.
const (
	InvalidRequest         Code = "invalid_request"
	ExpectationFailed      Code = "expectation_failed"
	UnsupportedCoding      Code = "unsupported_coding"
	EmptyBody              Code = "empty_body"
	InvalidBody            Code = "invalid_body"
	BodyTooLarge           Code = "body_too_large"
	RequestTimeout         Code = "request_timeout"
	InvalidJSON            Code = "invalid_json"
	InvalidUTF8            Code = "invalid_utf8"
	DuplicateKey           Code = "duplicate_key"
	TooDeep                Code = "too_deep"
	InvalidEvent           Code = "invalid_event"
	UnknownField           Code = "unknown_field"
	MissingField           Code = "missing_field"
	OutOfRange             Code = "out_of_range"
	InvalidType            Code = "invalid_type"
	InvalidID              Code = "invalid_id"
	InvalidTime            Code = "invalid_time"
	InvalidTenant          Code = "invalid_tenant"
	InvalidKey             Code = "invalid_key"
	InvalidIdempotencyKey  Code = "invalid_idempotency_key"
	IdempotencyConflict    Code = "idempotency_conflict"
	EmptyBatch             Code = "empty_batch"
	BatchTooLarge          Code = "batch_too_large"
	InvalidAttribute       Code = "invalid_attribute"
	UnsupportedSpecVersion Code = "unsupported_specversion"
	UnsupportedData        Code = "unsupported_data"
	SchemaMismatch         Code = "schema_mismatch"
	TooExpensive           Code = "too_expensive"
	UnknownType            Code = "unknown_type"
	NoEndpoint             Code = "no_endpoint"
	UnsupportedEncoding    Code = "unsupported_encoding"
	UnsupportedMediaType   Code = "unsupported_media_type"
	NotFound               Code = "not_found"
	MethodNotAllowed       Code = "method_not_allowed"
	MissingHost            Code = "missing_host"
	UnknownHost            Code = "unknown_host"
	CrossOrigin            Code = "cross_origin"
	Unauthorized           Code = "unauthorized"
	BadGateway             Code = "bad_gateway"
	GatewayTimeout         Code = "gateway_timeout"
	EventRefused           Code = "event_refused"
	EventInvalid           Code = "event_invalid"
	HeaderTooLarge         Code = "header_too_large"
	TooManyHeaders         Code = "too_many_headers"
	OutboxFull             Code = "outbox_full"
	OutboxUnavailable      Code = "outbox_unavailable"
	Overloaded             Code = "overloaded"
	EndpointNotFound       Code = "endpoint_not_found"
	DisabledInFile         Code = "disabled_in_file"
	InvalidConfig          Code = "invalid_config"
	NeedsRestart           Code = "needs_restart"
	InvalidParameter       Code = "invalid_parameter"
	UnknownParameter       Code = "unknown_parameter"
	NotIndexed             Code = "not_indexed"
	InvalidCursor          Code = "invalid_cursor"
	EventNotFound          Code = "event_not_found"
	DeliveryNotFound       Code = "delivery_not_found"
	OtherKind              Code = "other_kind"
	InvalidEndpoint        Code = "invalid_endpoint"
	EndpointInFile         Code = "endpoint_in_file"
	EndpointExists         Code = "endpoint_exists"
	Changed                Code = "changed_meanwhile"
	RuntimeOff             Code = "runtime_off"
	QuotaReached           Code = "quota_reached"
	NoSecretsKey           Code = "no_secrets_key"
	HasPending             Code = "has_pending"
	DeliveryPending        Code = "delivery_pending"
	DeliveryOver           Code = "delivery_over"
	AttemptUnderWay        Code = "attempt_under_way"
	EventErased            Code = "event_erased"
	EndpointRemoved        Code = "endpoint_removed"
	OtherTenant            Code = "other_tenant"
	EmptyFilter            Code = "empty_filter"
	NothingMatched         Code = "nothing_matched"
	TooManyJobs            Code = "too_many_jobs"
	JobNotFound            Code = "job_not_found"
	JobEnded               Code = "job_ended"
	Forbidden              Code = "forbidden"
	NoLinkKey              Code = "no_link_key"
	InternalError          Code = "internal_error"
)

// About is the common part of all problems with one code.
type About struct {
	Status     int    // of HTTP
	Title      string // the same in every answer
	RetryAfter int    // seconds, 0 for none
	Close      bool   // the connection cannot be used again
}

// table maps each code to its status.
var table = map[Code]About{
	InvalidRequest:         {Status: 400, Title: "The request is malformed", Close: true},
	ExpectationFailed:      {Status: 417, Title: "The expectation cannot be met", Close: true},
	UnsupportedCoding:      {Status: 501, Title: "The transfer coding is not supported", Close: true},
	EmptyBody:              {Status: 400, Title: "The body is empty"},
	InvalidBody:            {Status: 400, Title: "The body did not come whole", Close: true},
	BodyTooLarge:           {Status: 413, Title: "The body is too large", Close: true},
	RequestTimeout:         {Status: 408, Title: "The request did not come in time", Close: true},
	InvalidJSON:            {Status: 400, Title: "The body is not valid JSON"},
	InvalidUTF8:            {Status: 400, Title: "The body is not valid UTF-8"},
	DuplicateKey:           {Status: 400, Title: "An object has the same key twice"},
	TooDeep:                {Status: 400, Title: "The data is nested too deeply"},
	InvalidEvent:           {Status: 400, Title: "An event is not an object"},
	UnknownField:           {Status: 400, Title: "An event has an unknown field"},
	MissingField:           {Status: 400, Title: "An event lacks a field"},
	OutOfRange:             {Status: 400, Title: "A value is out of range"},
	InvalidType:            {Status: 400, Title: "The event type is not valid"},
	InvalidID:              {Status: 400, Title: "The event id is not valid"},
	InvalidTime:            {Status: 400, Title: "The event time is not valid"},
	InvalidTenant:          {Status: 400, Title: "The tenant is not valid"},
	InvalidKey:             {Status: 400, Title: "The event key is not valid"},
	InvalidIdempotencyKey:  {Status: 400, Title: "The Idempotency-Key is not valid"},
	IdempotencyConflict:    {Status: 409, Title: "The key was used before with other content"},
	EmptyBatch:             {Status: 400, Title: "The batch is empty"},
	BatchTooLarge:          {Status: 413, Title: "The batch has too many events"},
	InvalidAttribute:       {Status: 400, Title: "An attribute of the CloudEvent is not valid"},
	UnsupportedSpecVersion: {Status: 400, Title: "The version of CloudEvents is not supported"},
	UnsupportedData:        {Status: 415, Title: "The data is not JSON"},
	SchemaMismatch:         {Status: 422, Title: "The data does not fit the schema of its type"},
	TooExpensive:           {Status: 422, Title: "The data takes too long to check"},
	UnknownType:            {Status: 422, Title: "The event type is not declared"},
	NoEndpoint:             {Status: 422, Title: "No endpoint wants the event"},
	UnsupportedEncoding:    {Status: 415, Title: "The content encoding is not supported"},
	UnsupportedMediaType:   {Status: 415, Title: "The content type is not supported"},
	NotFound:               {Status: 404, Title: "There is nothing at this path"},
	MethodNotAllowed:       {Status: 405, Title: "The method is not allowed"},
	MissingHost:            {Status: 400, Title: "The Host header is missing"},
	UnknownHost:            {Status: 421, Title: "The Host header names another server"},
	CrossOrigin:            {Status: 403, Title: "Requests from web pages are refused"},
	Unauthorized:           {Status: 401, Title: "The bearer token is missing or wrong", Close: true},
	BadGateway:             {Status: 502, Title: "The upstream does not answer"},
	GatewayTimeout:         {Status: 504, Title: "The upstream does not answer in time"},
	EventRefused:           {Status: 503, Title: "An event of the answer was not accepted", RetryAfter: 2},
	EventInvalid:           {Status: 502, Title: "An event of the answer is not valid"},
	HeaderTooLarge:         {Status: 431, Title: "The header is too large", Close: true},
	TooManyHeaders:         {Status: 431, Title: "The request has too many headers", Close: true},
	OutboxFull:             {Status: 507, Title: "The outbox is full", RetryAfter: 30},
	OutboxUnavailable:      {Status: 503, Title: "The outbox is unavailable", RetryAfter: 2},
	Overloaded:             {Status: 503, Title: "Too many requests at once", RetryAfter: 1, Close: true},
	EndpointNotFound:       {Status: 404, Title: "There is no such endpoint"},
	DisabledInFile:         {Status: 409, Title: "The file disables the endpoint"},
	InvalidConfig:          {Status: 422, Title: "The configuration has errors"},
	NeedsRestart:           {Status: 409, Title: "The change needs a restart"},
	InvalidParameter:       {Status: 400, Title: "A parameter is not valid"},
	UnknownParameter:       {Status: 400, Title: "There is no such parameter"},
	NotIndexed:             {Status: 400, Title: "The field of the data is not indexed"},
	InvalidCursor:          {Status: 400, Title: "The cursor is not valid"},
	EventNotFound:          {Status: 404, Title: "There is no such event"},
	DeliveryNotFound:       {Status: 404, Title: "There is no such delivery"},
	OtherKind:              {Status: 404, Title: "The id is of something else"},
	InvalidEndpoint:        {Status: 422, Title: "The settings of the endpoint have errors"},
	EndpointInFile:         {Status: 409, Title: "The file has the endpoint"},
	EndpointExists:         {Status: 409, Title: "There is such an endpoint already"},
	Changed:                {Status: 412, Title: "Somebody else changed it meanwhile"},
	RuntimeOff:             {Status: 409, Title: "The file allows no endpoints at run time"},
	QuotaReached:           {Status: 409, Title: "There are as many as are allowed"},
	NoSecretsKey:           {Status: 409, Title: "The secret cannot be sealed or opened"},
	HasPending:             {Status: 409, Title: "Deliveries are pending"},
	DeliveryPending:        {Status: 409, Title: "The delivery is not over"},
	DeliveryOver:           {Status: 409, Title: "The delivery is over"},
	AttemptUnderWay:        {Status: 409, Title: "An attempt is under way"},
	EventErased:            {Status: 409, Title: "The data of the event was erased"},
	EndpointRemoved:        {Status: 409, Title: "The endpoint is in no file any more"},
	OtherTenant:            {Status: 409, Title: "The endpoint is for other tenants"},
	EmptyFilter:            {Status: 400, Title: "The filter has no condition"},
	NothingMatched:         {Status: 422, Title: "No delivery matches the filter"},
	TooManyJobs:            {Status: 409, Title: "Too many jobs are open"},
	JobNotFound:            {Status: 404, Title: "There is no such job"},
	JobEnded:               {Status: 409, Title: "The job has ended"},
	Forbidden:              {Status: 403, Title: "The token may not do this"},
	NoLinkKey:              {Status: 409, Title: "The file has no link_key"},
	InternalError:          {Status: 500, Title: "Relay met an error of its own", Close: true},
}

// About returns what the table says of the code. An unknown code has no status.
func (c Code) About() About { return table[c] }

// Codes returns all codes, in no order.
func Codes() []Code { return slices.Collect(maps.Keys(table)) }

// Problem is the body of a refusal (RFC 9457). It contains neither payload nor secrets: at most
// the name of a key, truncated.
type Problem struct {
	Type    string `json:"type"` // a name, not an address to fetch
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Code    Code   `json:"code"`
	Detail  string `json:"detail"`
	Field   string `json:"field,omitempty"`
	Pointer string `json:"pointer,omitempty"` // into the data, RFC 6901; "" for all of it
	Keyword string `json:"keyword,omitempty"` // of the schema
	Index   *int   `json:"index,omitempty"`   // of the event in a batch, from 0
	Line    int    `json:"line,omitempty"`    // of the body, from 1
	Offset  *int   `json:"offset,omitempty"`  // of the byte in the body, from 0

	Diagnostics []string `json:"diagnostics,omitempty"` // of a reload that was refused: all of its errors

	Fatal bool `json:"-"` // the connection cannot be used again, whatever the code says
}

// New makes a problem.
func New(c Code, detail string) *Problem {
	about := c.About()
	return &Problem{
		Type:   "urn:relay:problem:" + string(c),
		Title:  about.Title,
		Status: about.Status,
		Code:   c,
		Detail: detail,
	}
}

// Closes tells whether the connection ends with the answer.
func (p *Problem) Closes() bool { return p.Code.About().Close || p.Fatal }

// Challenge is the value of WWW-Authenticate, "" for none.
func (p *Problem) Challenge() string {
	if p.Code == Unauthorized {
		return `Bearer realm="relay"`
	}
	return ""
}

// Body is the JSON text of the problem, with a line feed.
func (p *Problem) Body() []byte {
	body, err := json.Marshal(p)
	if err != nil {
		panic("problem: body cannot be written: " + err.Error()) // strings and numbers always can be encoded
	}
	return append(body, '\n')
}

// Write answers a request of net/http with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	body := p.Body()
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if after := p.Code.About().RetryAfter; after > 0 {
		h.Set("Retry-After", strconv.Itoa(after))
	}
	if challenge := p.Challenge(); challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if p.Closes() {
		h.Set("Connection", "close")
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that has gone will repeat the request
}
