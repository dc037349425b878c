package outbox

import "time"

// Term qualifies one delivery. Code fails it at accept; Mark drops it unless the mark's
// level rises. The zero Term changes nothing.
type Term struct {
	// Code, when it is not "", makes the delivery failed at accept, without an attempt; Error is
	// for people, at most 512 bytes.
	Code, Error string

	// Mark drops the delivery unless its level rises; nil for none.
	Mark *Mark
}

// Mark is a level that the outbox remembers under a key, so that repeats can be dropped. The
// delivery is made if Level is above the remembered level, which is 0 by default; Level is then
// remembered for the duration For from now. This is part of the commit of the accept, and marks
// of one batch see each other in its order.
//
// For one delivery per period, use Level 1: repeats within For are dropped, and do not extend it.
type Mark struct {
	Key   string // 1 to 128 bytes; contains endpoint and subject, so that filters share no key
	Level int64  // at least 0
	Lower bool   // remember Level even if it is below the remembered level
	For   time.Duration
}
