package admin

import (
	"encoding/base64"
	"strings"
	"time"
)

// LinkEnd is why a link does not hold.
type LinkEnd string

// The reasons.
const (
	LinkHolds   LinkEnd = ""
	LinkLate    LinkEnd = "late"    // its time is over
	LinkUnknown LinkEnd = "unknown" // no key that there is signed it: its key was taken away, or somebody changed the link
	LinkCut     LinkEnd = "cut"     // it is not whole
	LinkRevoked LinkEnd = "revoked" // it was taken back
	LinkUnsure  LinkEnd = "unsure"  // it cannot be known so far whether it was taken back
)

// IsLink tells whether a token has the form of a link, at its beginning.
func IsLink(token string) bool { return strings.HasPrefix(token, LinkPrefix) }

// End says why a token is no link that holds. Only of one that a key signed its time is believed.
func (l Links) End(token string, now time.Time) LinkEnd {
	c, signed, whole := l.read(token)
	switch {
	case !whole:
		return LinkCut
	case !signed:
		return LinkUnknown
	case now.Unix() >= c.Expires:
		return LinkLate
	}
	return l.Revoked.end(&c)
}

// parts of a token: the text of its claims, and its signature; ok is false if it is not whole.
func linkParts(token string) (text, sum []byte, ok bool) {
	rest, is := strings.CutPrefix(token, LinkPrefix)
	body, signature, dotted := strings.Cut(rest, ".")
	if !is || !dotted || len(token) > linkBody {
		return nil, nil, false
	}
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, nil, false
	}
	sum, err = base64.RawURLEncoding.DecodeString(signature)
	return text, sum, err == nil
}
