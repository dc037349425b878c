package outbox

import (
	"context"
	"time"
)

// Fleet is implemented by engines that several Relays share: it lists the Relays and their
// settings.
type Fleet interface {
	// Relays returns the Relays whose heartbeat is recent, by number. Errors:
	// ErrUnavailable, ErrClosed, the context's.
	Relays(ctx context.Context) ([]Relay, error)

	// SetEndpoints tells the other Relays the hashes of this one's endpoint settings, by endpoint
	// name. The caller must not change the map afterwards. After an error the engine retries by
	// itself.
	SetEndpoints(ctx context.Context, hashes map[string]string) error

	// Name returns the name of this Relay, which no other Relay of the outbox has at the same time. It
	// may change after an outage. It calls no server.
	Name() string
}

// Relay is one of the Relays that share an outbox.
type Relay struct {
	Name      string
	Number    int64 // given when it joined; a restart gives another
	Host      string
	PID       int
	Version   string
	Started   time.Time
	Seen      time.Time         // its last heartbeat, by the outbox's clock
	Endpoints map[string]string // hash of its settings for each endpoint, by name
	Self      bool              // the calling Relay
}
