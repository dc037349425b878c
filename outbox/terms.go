package outbox

import "time"

// Term qualifies one delivery. Code fails it at accept; Mark drops it unless the mark's
// level rises. The zero Term changes nothing.
type Term struct {
	// Code, when it is not "", makes the delivery failed from the start, without an attempt;
	// Error is for people, at most 512 bytes.
	Code, Error string

	// Mark, when it is not nil, must let the delivery be made: else there is none.
	Mark *Mark
}

// Mark is a level that the outbox remembers under a key, to tell what is new from what is
// not. The delivery is made when Level is above what is remembered, which is 0 when
// nothing is; then Level is remembered for the time For, from now on. All of it is part of
// the commit that accepts: marks of one batch see each other in its order.
//
// To have something once in a while, use Level 1: what comes again within For is
// left out, and does not begin it anew.
type Mark struct {
	Key   string // 1 to 128 bytes; of the endpoint and the subject, so that no two filters share one
	Level int64  // at least 0
	Lower bool   // remember Level also when it is below what is remembered
	For   time.Duration
}
