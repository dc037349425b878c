package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"relay/config"
	"relay/config/eval"
	"relay/policy/expr"
	"relay/policy/rawjson"
	"relay/policy/sign"
)

// The content types that mean something here.
const (
	typeJSON        = "application/json"
	typeForm        = "application/x-www-form-urlencoded"
	typeCloudEvents = "application/cloudevents+json"
)

// Body makes the body of a request for an event. It is compiled: literals of the file are bytes,
// parts of the event's data are copied from its bytes, and only the rest is evaluated. nil is the
// default body. Its methods may be called at the same time.
type Body struct {
	contentType string
	kind        string        // for people: "object", "text", …
	source      string        // as the file says it, for Hash
	answers     config.Secret // what env() and file() gave
	root        *expr.Template
	check       bool           // a text that must be JSON
	ecmascript  bool           // the form of JSON.stringify
	binary      string         // source of a CloudEvent in binary mode, "" for other bodies
	masked      *expr.Template // root with *** for what env() and file() gave; nil if they gave nothing
}

// ContentType is the value of the header Content-Type.
func (b *Body) ContentType() string { return b.contentType }

const kindDefault = "default"

// Append appends the body for an event. The same view gives the same bytes. The error says
// where in the file and why, and holds no data of the event.
func (b *Body) Append(dst []byte, v *View) ([]byte, error) {
	if b == nil {
		return expr.AppendDefault(dst, v), nil
	}
	start := len(dst)
	dst, err := b.root.Append(dst, v)
	switch {
	case err != nil:
		return dst, err
	case b.check && !json.Valid(dst[start:]):
		return dst[:start], errors.New(`the text is not JSON: jsonencode() writes what stands between quotes, and content_type = "text/plain" allows any text`)
	}
	if b.ecmascript {
		end := len(dst)
		if dst, err = rawjson.AppendECMAScript(dst, dst[start:]); err != nil {
			return dst[:start], fmt.Errorf("the body is %w", err)
		}
		dst = append(dst[:start], dst[end:]...)
	}
	return dst, nil
}

// Masked is the body with *** in place of what env() and file() gave, to be shown to people.
func (b *Body) Masked() *Body {
	if b == nil || b.masked == nil {
		return b
	}
	shown := *b
	shown.root, shown.answers, shown.masked = b.masked, config.Secret{}, nil
	return &shown
}

// AppendHeader appends the header lines that belong to the body, beside Content-Type.
func (b *Body) AppendHeader(h []sign.Header, v *View) []sign.Header {
	if b == nil || b.binary == "" {
		return h
	}
	for _, line := range expr.CloudHeader(v, b.binary) {
		h = append(h, sign.Header{Name: line[0], Value: line[1]})
	}
	return h
}

// equal compares all that determines the bytes; both may be nil.
func (b *Body) equal(o *Body) bool {
	return b.String() == o.String() && (b == nil || b.answers.Equal(o.answers))
}

// String is the file's text on one line, "" for the default body, without what env() and file()
// gave.
func (b *Body) String() string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("%s %t %q %q", b.contentType, b.ecmascript, b.binary, b.source)
}

// settings are what diff shows: the kind of body, not its content.
func (b *Body) settings() []config.Setting {
	if b == nil {
		b = &Body{kind: kindDefault, contentType: typeJSON}
	}
	return []config.Setting{
		{Name: "body", Value: b.kind, Hidden: config.NewSecret(b.source + b.binary + b.answers.Reveal())},
		{Name: "content_type", Value: b.contentType},
		{Name: "ecmascript", Value: fmt.Sprint(b.ecmascript)},
	}
}

// readBody reads body, content_type, ecmascript and source. Without any of them the body stays
// nil.
func (e *Endpoint) readBody(b *config.Block, lane *eval.Lane) {
	body := &Body{contentType: typeJSON}
	from, given := b.Deferred("body")
	typed := b.String("content_type", &body.contentType, validType)
	b.Bool("ecmascript", &body.ecmascript)
	source := "relay"
	sourced := b.String("source", &source, validSource)

	isForm := mediaType(body.contentType) == typeForm
	cloud := ""
	if given {
		cloud = expr.Keyword(from)
	}
	if (typed || cloud == expr.CloudStructured) && hasHeader(e.Headers, "Content-Type") {
		b.Fail(b.At("headers"), "Reserved header", "the body has its own content type: leave Content-Type out of headers.")
	}
	switch {
	case !given && !typed && !body.ecmascript && !sourced:
		return
	case cloud == "":
		if sourced {
			b.Invalid("source", "only a cloudevent has a source: write body = cloudevent, or leave source out.")
		}
		if isForm && !given {
			b.Invalid("content_type", `a form needs a body that is an object: body = { id = event.id, … }.`)
		}
		if given {
			body.compile(from, expr.Site{Endpoint: e.Name, Budget: e.Budget.Body, Lane: lane}, isForm)
			if body.root != nil && len(from.Expr.Variables()) == 0 { // it is the same for every event
				if _, err := body.Append(nil, &View{}); err != nil {
					b.Invalid("body", "no event can fill it: "+err.Error())
				}
			}
		} else {
			body.kind, body.root = kindDefault, expr.Default()
		}
	case typed:
		b.Invalid("content_type", "a cloudevent has its own content type. Leave it out.")
	case cloud == expr.CloudStructured:
		body.kind, body.contentType, body.root = cloud, typeCloudEvents, expr.CloudEvent(source)
		if b.Draws("source") {
			body.masked, body.answers = expr.CloudEvent(Hidden), config.NewSecret(source)
		}
	default:
		body.kind, body.binary, body.root = cloud, source, expr.Data()
		for _, h := range e.Headers {
			if strings.HasPrefix(strings.ToLower(h.Name), "ce-") {
				b.Fail(b.At("headers"), "Reserved header", b.At("headers").Quote(h.Name)+" is written by cloudevent_binary.")
			}
		}
	}
	if body.ecmascript && (isForm || !isJSON(body.contentType)) {
		b.Invalid("ecmascript", fmt.Sprintf("it brings JSON to the form of JSON.stringify; this body is %s.", b.At("content_type").Quote(body.contentType)))
	}
	e.Body = body
}

// ownBody reads the body of an endpoint from the attributes of its block.
func (d *decoder) ownBody(e *Endpoint, b *config.Block) { e.readBody(b, d.lane) }

// readBodies reads bodies that endpoints made at run time can have.
func (d *decoder) readBodies(blocks []*config.Block) {
	budget := d.policies[defaultPolicy].budget
	for _, b := range blocks {
		checkName(b)
		b.Require("body", "body = { id = event.id, … }")
		e := &Endpoint{Name: b.Name, Budget: budget}
		e.readBody(b, d.lane)
		b.Done()
		d.bodies[b.Name] = e.Body
	}
}

// compile compiles the attribute body, except for a cloudevent.
func (b *Body) compile(from config.Deferred, site expr.Site, isForm bool) {
	s := expr.NewScope(from, site, "event", "delivery", "endpoint")
	b.source = from.Source
	if s.Bad() {
		return
	}
	switch {
	case isForm:
		b.kind = expr.KindForm
	case s.IsJSON():
		b.kind = expr.KindJSON
	default:
		b.kind, b.check = expr.KindText, isJSON(b.contentType)
	}
	root := s.Template(b.kind)
	if s.Bad() {
		return
	}
	b.root, b.masked, b.answers = root, s.Masked(b.kind), s.Answers()
}

func hasHeader(all []Header, name string) bool {
	return slices.ContainsFunc(all, func(h Header) bool { return strings.EqualFold(h.Name, name) })
}

func mediaType(contentType string) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	return t
}

func isJSON(contentType string) bool {
	isJSON, _ := rawjson.MediaType(contentType)
	return isJSON
}

func validSource(s string) error {
	if _, err := url.Parse(s); err != nil || s == "" {
		return errors.New(`write a URI or a part of one, like "/orders" or "https://shop.example.com"`)
	}
	return nil
}

func validType(s string) error {
	if !strings.Contains(mediaType(s), "/") || !httpguts.ValidHeaderFieldValue(s) {
		return errors.New(`write a media type like "text/plain; charset=utf-8"`)
	}
	return nil
}
