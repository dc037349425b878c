package listen

import (
	"net/http"
	"strconv"
	"time"

	"relay/ingest/problem"
)

// Limits of every HTTP server. An answer may take WriteTimeout from the end of the request's
// header: time for a slow body, for the outbox, and for sending the answer.
const (
	ReadHeaderTimeout = 5 * time.Second
	ReadTimeout       = 30 * time.Second // from the first byte to the last of the body
	WriteTimeout      = 60 * time.Second
	IdleTimeout       = 2 * time.Minute

	MaxHeaderBytes = 32 << 10
	MaxHeaders     = 100

	DefaultMaxConns = 1024
)

// StatusText is the reason phrase of a status that Relay uses.
func StatusText(status int) string { return http.StatusText(status) }

// TooManyHeaders refuses a request with more than MaxHeaders header lines.
func TooManyHeaders() *problem.Problem {
	return problem.New(problem.TooManyHeaders, "a request has at most "+strconv.Itoa(MaxHeaders)+" headers")
}
