package ingest

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
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
		h.in.bodyProblem(err).response().write(w)
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
	h.in.Handle(r.Context(), &Request{
		Method:          r.Method,
		Path:            r.URL.Path,
		ContentType:     r.Header.Get("Content-Type"),
		ContentEncoding: strings.Join(r.Header["Content-Encoding"], ","),
		IdempotencyKey:  r.Header["Idempotency-Key"],
		Attributes:      attributes,
		Body:            body,
	}).write(w)
}
