package admin

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"relay/ingest/problem"
)

// Tokens are who may talk to the admin listeners.
type Tokens struct {
	Whole  string             // admin.token: the whole power; "" for none
	Others map[string]*Access // by token
	Links  Links
}

// Authorize gives each request its access by its bearer token, and refuses wrong tokens. Requests without a token
// have the whole power if open, as at a Unix socket, and are refused otherwise. tokens is asked for each request, so that a
// reload can take tokens away. refused gets each request with a wrong token; nil for none.
func Authorize(tokens func() *Tokens, open bool, refused func(*http.Request), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		access, ok := tokens().accessOf(r, open)
		if !ok && tokens().unsure(r) {
			problem.New(problem.OutboxUnavailable, "whether this link was taken back is not known before the outbox answers: ask again").Write(w)
			return
		}
		if !ok {
			if refused != nil && r.Header.Get("Authorization") != "" {
				refused(r)
			}
			problem.New(problem.Unauthorized, "send the header Authorization: Bearer with a token of this listener, or a link that holds").Write(w)
			return
		}
		if r.Header.Get("Authorization") != "" {
			ctx := WithHolds(WithAccess(r.Context(), access), func() bool {
				now, known := tokens().accessOf(r, open)
				return known && now.Same(access)
			})
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// Let tells whether Authorize lets a request through.
func (t *Tokens) Let(r *http.Request, open bool) bool {
	_, ok := t.accessOf(r, open)
	return ok
}

func (t *Tokens) accessOf(r *http.Request, open bool) (*Access, bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, open
	}
	scheme, sent, _ := strings.Cut(header, " ")
	access, known := t.Find(strings.TrimSpace(sent))
	return access, known && strings.EqualFold(scheme, "Bearer")
}

// unsure tells whether a request comes by a link that may hold, or was taken back.
func (t *Tokens) unsure(r *http.Request) bool {
	_, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return t.Links.End(strings.TrimSpace(sent), time.Now()) == LinkUnsure
}

// Find is the access of a token or a link, nil for the whole power, and whether it is known. It compares hashes, so that
// the time does not depend on the tokens.
func (t *Tokens) Find(sent string) (access *Access, known bool) {
	if sent == "" {
		return nil, false
	}
	got := sha256.Sum256([]byte(sent))
	if t.Whole != "" && got == sha256.Sum256([]byte(t.Whole)) {
		return nil, true
	}
	for token, a := range t.Others {
		if got == sha256.Sum256([]byte(token)) {
			return a, true
		}
	}
	if a := t.Links.Access(sent, time.Now()); a != nil {
		return a, true
	}
	return nil, false
}
