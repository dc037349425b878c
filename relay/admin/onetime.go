package admin

import (
	"crypto/rand"
	"strings"
	"sync"
)

const oneTimePrefix = "relay_once_"

// OneTime keeps codes for links to the page that log in once. A code stands for a token, which so is in no address. Codes
// are in memory alone: each holds until it is used, or the process ends.
type OneTime struct {
	used func()

	mu     sync.Mutex
	tokens map[string]string // by code; "" once it was used
}

// NewOneTime makes a keeper without codes. used is called after each use, and must not block.
func NewOneTime(used func()) *OneTime {
	return &OneTime{used: used, tokens: map[string]string{}}
}

// IsOneTime tells whether a text has the form of a code.
func IsOneTime(text string) bool { return strings.HasPrefix(text, oneTimePrefix) }

// Make makes a code for a token.
func (o *OneTime) Make(token string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	code := oneTimePrefix + rand.Text()
	o.tokens[code] = token
	return code
}

// Look returns the token of a code, "" if it was used, and whether there is such a code. It does not use it up. A nil
// OneTime has no codes.
func (o *OneTime) Look(code string) (token string, known bool) {
	if o == nil {
		return "", false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	token, known = o.tokens[code]
	return token, known
}

// Use uses a code up. It tells whether this was its only use: of several at the same time one is.
func (o *OneTime) Use(code string) bool {
	if o == nil || !o.use(code) {
		return false
	}
	o.used()
	return true
}

func (o *OneTime) use(code string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	holds := o.tokens[code] != ""
	if holds {
		o.tokens[code] = ""
	}
	return holds
}
