package outbox

import "time"

// Clock is implemented by engines whose outbox has a clock of its own, as a shared one does. All
// times in the outbox except Event.Time are then by that clock, so that a process with a wrong
// clock does not mislead others. Without a Clock they are by this process's.
type Clock interface {
	// At converts t to the outbox's clock, by the last measurement of the difference, which is
	// exact to the duration of a call. t must have its monotonic reading, so that setting this
	// machine's clock has no effect. It calls no server.
	At(t time.Time) time.Time
}
