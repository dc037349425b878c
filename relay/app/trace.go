package app

import (
	"fmt"
	"net/http"
	"os"

	"relay/internal/trace"
)

// newTracer returns nil if the file has no trace block.
func newTracer(o Options) *trace.Tracer {
	c := o.Config.Trace
	if c.OTLP == "" {
		return nil
	}
	header := http.Header{}
	for _, h := range c.Headers {
		header.Set(h.Name, h.Value.Reveal())
	}
	resource := []trace.Attribute{
		{Key: "service.name", Text: c.Service},
		{Key: "service.version", Text: o.Version},
		{Key: "process.pid", Number: int64(os.Getpid())},
	}
	if host, err := os.Hostname(); err == nil {
		resource = append(resource,
			trace.Attribute{Key: "host.name", Text: host},
			trace.Attribute{Key: "service.instance.id", Text: fmt.Sprintf("%s:%d", host, os.Getpid())})
	}
	return trace.New(trace.Options{
		URL: c.OTLP, Header: header, Sample: c.Sample, Resource: resource,
		Version: o.Version, Log: o.Log, Hush: o.Config.Hush,
	})
}
