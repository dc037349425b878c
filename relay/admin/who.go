package admin

import (
	"fmt"
	"net/http"

	"relay/ingest/listen"
)

// Who names who makes a request, for the audit and the log: the user of the process at a Unix socket, or that the
// token of the listener was shown.
func Who(r *http.Request) string {
	if a := AccessOf(r.Context()); a != nil {
		return a.who()
	}
	if uid, ok := listen.Peer(r.Context()); ok {
		return fmt.Sprintf("uid %d", uid)
	}
	if r.Header.Get("Authorization") != "" {
		return "admin token"
	}
	return "local"
}
