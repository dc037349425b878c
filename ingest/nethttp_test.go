package ingest

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// reference is Ingest behind net/http: what the server is compared with.
type reference struct{ in *Ingest }

func (h reference) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.in.o.MaxBody))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		err = errChunkSize
	}
	if err != nil {
		write(w, response(h.in.bodyProblem(err)))
		return
	}
	var attributes []Attribute
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if short, ok := strings.CutPrefix(name, "Ce-"); ok && short != "" {
			for _, value := range r.Header[name] {
				attributes = append(attributes, Attribute{strings.ToLower(short), value})
			}
		}
	}
	write(w, h.in.Handle(r.Context(), &Request{
		Method:          r.Method,
		Path:            r.URL.Path,
		ContentType:     r.Header.Get("Content-Type"),
		ContentEncoding: strings.Join(r.Header["Content-Encoding"], ","),
		IdempotencyKey:  r.Header["Idempotency-Key"],
		Attributes:      attributes,
		Body:            body,
	}))
}

// write sends the response.
func write(w http.ResponseWriter, r Response) {
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	if r.Allow != "" {
		h.Set("Allow", r.Allow)
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	if r.Challenge != "" {
		h.Set("WWW-Authenticate", r.Challenge)
	}
	if r.Close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body)
}
