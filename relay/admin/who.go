package admin

import (
	"fmt"
	"net/http"

	"relay/ingest/listen"
)

// owner is Who without whom a link was made for: all links of a tenant have the same jobs.
func owner(r *http.Request) string {
	if a := AccessOf(r.Context()); a != nil {
		return a.who()
	}
	return Who(r)
}

// Who names who makes a request, for the audit and the log: the token of an access, the user of the process at a Unix
// socket, or that the token of the listener was shown, or a session that stands for it.
func Who(r *http.Request) string {
	a, shown := r.Context().Value(accessKey{}).(*Access)
	switch {
	case a != nil && a.For != "":
		return a.who() + " for " + a.For
	case a != nil:
		return a.who()
	}
	if uid, ok := listen.Peer(r.Context()); ok {
		return fmt.Sprintf("uid %d", uid)
	}
	if shown {
		return "admin token"
	}
	return "local"
}
