package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Trace says where spans are sent. Without OTLP there are none.
type Trace struct {
	OTLP    string // base URL of a collector
	Sample  float64
	Service string // service.name of all spans
	Headers []TraceHeader
}

// TraceHeader is sent with each request to the collector.
type TraceHeader struct {
	Name  string
	Value Secret

	drawn bool // the name, if env() or file() gave a part of it
}

func defaultTrace() Trace { return Trace{Sample: 0.01, Service: "relay"} }

func (d *decoder) trace(b *Block) {
	if b == nil {
		return
	}
	t := &d.config.Trace
	b.Require("otlp", `otlp = "http://127.0.0.1:4318", the address of a collector that takes OTLP over HTTP`)
	b.String("otlp", &t.OTLP, checkCollector)
	b.Float("sample", &t.Sample, 0, 1)
	b.String("service", &t.Service, func(s string) error {
		if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("write 1 to 255 bytes without control characters")
		}
		return nil
	})
	for _, h := range b.Map("headers") {
		same := func(x TraceHeader) bool { return strings.EqualFold(x.Name, h.Key) }
		switch {
		case !httpguts.ValidHeaderFieldName(h.Key):
			b.Fail(h.KeyPlace, "Invalid header name", "a name is letters, digits and - (RFC 9110 section 5.1).")
		case slices.Contains([]string{"content-type", "content-length", "transfer-encoding", "host", "connection"}, strings.ToLower(h.Key)):
			b.Fail(h.KeyPlace, "Reserved header", fmt.Sprintf("%s is written by Relay or by HTTP itself.", h.KeyPlace.Quote(h.Key)))
		case slices.ContainsFunc(t.Headers, same):
			b.Fail(h.KeyPlace, "Duplicate header", fmt.Sprintf("%s stands twice.", h.KeyPlace.Quote(h.Key)))
		case !httpguts.ValidHeaderFieldValue(h.Value.Reveal()):
			b.Fail(h.Place, "Invalid header value", fmt.Sprintf("%s has a line break or another control character in it.", h.KeyPlace.Quote(h.Key)))
		}
		t.Headers = append(t.Headers, TraceHeader{h.Key, h.Value, h.KeyPlace.Quote("") != ""})
	}
	b.Done()
}

// checkCollector accepts the base URL of a collector.
func checkCollector(s string) error {
	form := errors.New(`write the address of a collector that takes OTLP over HTTP, like "http://127.0.0.1:4318"`)
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return form
	case u.User != nil:
		return errors.New(`the URL holds a user: write headers = { Authorization = env("…") } instead`)
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("a collector's URL has neither ? nor #")
	case strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/v1/traces"):
		return errors.New("write it without /v1/traces, which is added")
	}
	return CheckHost(u.Hostname())
}

func (t Trace) settings() []Setting {
	if t.OTLP == "" {
		return nil
	}
	all := []Setting{
		{Name: "trace.otlp", Value: t.OTLP},
		{Name: "trace.sample", Value: decimal(t.Sample)},
		{Name: "trace.service", Value: t.Service},
	}
	for _, h := range t.Headers {
		name := h.Name
		if h.drawn {
			name = Hidden
		}
		all = append(all, Setting{Name: "trace.headers " + name, Value: "set", Hidden: h.Value})
	}
	return all
}
