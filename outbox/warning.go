package outbox

// Warned is implemented by engines that see things an operator should mend while work goes on:
// settings of their server that endanger what was promised, or keys that somebody spoilt.
type Warned interface {
	// Warnings returns what is the matter now, nothing where all is well. It calls no server.
	Warnings() []Warning
}

// Warning is one thing that an operator should mend.
type Warning struct {
	What string
	Next string // what to do

	// Danger says that accepted events may be lost or are, or that none are accepted: more than what the operator chose or
	// has lived with since the start.
	Danger bool
}
