package admin

import (
	"bytes"
	_ "embed" // for the document
	"encoding/json"
	"net/http"
	"sync"

	"relay/internal/packed"
)

// document is the OpenAPI document of all routes. `make docs` writes it from the table of routes, the
// types of bodies and answers, and their comments. It is compressed, which makes the binary 70 KB smaller.
//
//go:embed openapi.json.gz
var document []byte

// Document is the OpenAPI 3.1 document of the admin routes, for a version of Relay.
func Document(version string) []byte {
	quoted, _ := json.Marshal(version) // a text always can be written
	return bytes.Replace(packed.Text(document), []byte(`"version": "0"`), append([]byte(`"version": `), quoted...), 1)
}

func (a *api) documentRoutes() []route {
	document := sync.OnceValue(func() []byte { return Document(a.Version) })
	return []route{{
		id: "getDocument", method: "GET", path: "/openapi.json", summary: "This document",
		answer: map[string]any{}, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(document()) // the client has gone
		},
	}}
}
