// Package alert watches endpoints and the outbox and tells once when a condition of the file
// begins to hold and once when it ends.
//
// Evaluator decides from samples and knows no clock or outbox. Watcher takes the samples, one
// Relay of a fleet at a time, and keeps the state of firing alerts in the outbox.
package alert

import (
	"time"

	"relay/outbox/sketch"
	"relay/policy"
)

// Sample is what is known at one time.
type Sample struct {
	At        time.Time
	Endpoints map[string]Endpoint
	Accepted  int64   // deliveries, since the outbox was made
	Fill      float64 // of the outbox, 0 to 1

	Certificates map[string]time.Time // when each of the process's certificates ends, by name
}

// Endpoint is an endpoint in a Sample.
type Endpoint struct {
	// Since any time that is the same for all samples of an Evaluator.
	Delivered, Attempts int64
	Took                sketch.Sketch // of the attempts

	Pending     int64
	Oldest      time.Duration // age of the oldest pending delivery, 0 for none
	BreakerOpen bool
	Disabled    bool
}

// Subject is an alert about one endpoint, certificate, or the whole.
type Subject struct {
	Alert string `json:"alert"`
	About string `json:"about,omitempty"` // name of the endpoint or certificate; "" for the outbox
}

// Firing is an alert that fires.
type Firing struct {
	Subject
	On    string    `json:"on"`
	Value string    `json:"value,omitempty"` // when it fired, for people
	Limit string    `json:"limit,omitempty"`
	Since time.Time `json:"since"` // when the condition began to hold
	Fired time.Time `json:"fired"`
}

// Transition is an alert that begins or ends to fire.
type Transition struct {
	Firing
	Resolved bool
	Endpoint string // About, if it is an endpoint
	At       time.Time
	Number   float64 // the value: a share, a number, or seconds
	Bound    float64 // the limit
	Why      string  // it ended without a value, for people; else ""
}

// State is what outlives a restart.
type State struct {
	Firing []Firing  `json:"firing,omitempty"`
	Quiet  []Silence `json:"quiet,omitempty"`
}

// Silence is a Subject that must not fire again before Until.
type Silence struct {
	Subject
	Until time.Time `json:"until"`
}

// condition is the state of a Subject.
type condition struct {
	since  time.Time // when it began to hold; zero while it does not
	firing *Firing
	quiet  time.Time // not before this
}

// reading is the value of an alert's subject; known is false if there is too little to judge.
type reading struct {
	value float64
	holds bool
	known bool
	why   string // there is no value, "" where there is
}

// holds compares a value with the limit.
func holds(a *policy.Alert, value float64) reading {
	is := value > a.Limit
	if a.Below() {
		is = value < a.Limit
	}
	return reading{value: value, holds: is, known: true}
}
