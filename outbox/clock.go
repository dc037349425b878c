package outbox

import "time"

// Clock is what an engine offers beside Store when the outbox has a clock of its own, as a
// shared one does. Times that the outbox keeps or gives out are of that clock, but for
// Event.Time, so a process with a wrong clock misleads no other. Without a Clock they are of this
// process's.
type Clock interface {
	// At returns what the outbox's clock shows at the moment t, as measured last: exact to
	// the duration of a call. t is a result of time.Now, with its monotonic reading, so that
	// setting the clock of this machine moves nothing. It asks nobody.
	At(t time.Time) time.Time
}
