package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// sessionText keeps sums of sessions apart from other uses of a token.
const sessionText = "relay page session\x00"

// sessionHead is the length of the end of a session, in bytes: seconds since 1970.
const sessionHead = 8

// Session is a value for a cookie that stands for a token until a time, in whole seconds; ok is false if the token
// is not known. It is the time and its sum (HMAC with SHA-256, RFC 2104) with the token as the key, both in
// base64url (RFC 4648 section 5). So nothing is stored, the cookie does not have the token, every Relay with the
// same tokens takes it, also after a restart, and a reload that removes the token ends it. A link stands for itself:
// it ends by itself.
func (t *Tokens) Session(token string, until time.Time) (value string, ok bool) {
	if _, known := t.Find(token); !known {
		return "", false
	}
	if t.Links.Access(token, time.Now()) != nil {
		return token, true
	}
	end := binary.BigEndian.AppendUint64(nil, uint64(max(0, until.Unix())))
	return base64.RawURLEncoding.EncodeToString(end) + "." + base64.RawURLEncoding.EncodeToString(sessionSum(token, end)), true
}

func sessionSum(token string, end []byte) []byte {
	h := hmac.New(sha256.New, []byte(token))
	h.Write([]byte(sessionText))
	h.Write(end)
	return h.Sum(nil)
}

// AccessOfSession is the access of what Session made, nil for the whole power; ok is false if it is forged, over, or of
// a token that is no longer there. Its time does not depend on which sum is right, and how much of it.
func (t *Tokens) AccessOfSession(value string, now time.Time) (access *Access, ok bool) {
	if strings.HasPrefix(value, LinkPrefix) {
		access = t.Links.Access(value, now)
		return access, access != nil
	}
	head, tail, _ := strings.Cut(value, ".")
	strict := base64.RawURLEncoding.Strict()
	end, err := strict.DecodeString(head)
	if err != nil || len(end) != sessionHead {
		return nil, false
	}
	sum, err := strict.DecodeString(tail)
	if err != nil || now.Unix() < 0 || uint64(now.Unix()) >= binary.BigEndian.Uint64(end) {
		return nil, false
	}
	if t.Whole != "" && hmac.Equal(sum, sessionSum(t.Whole, end)) {
		ok = true
	}
	for token, a := range t.Others {
		if hmac.Equal(sum, sessionSum(token, end)) && !ok {
			access, ok = a, true
		}
	}
	return access, ok
}
