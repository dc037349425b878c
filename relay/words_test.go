package main

import (
	"os"
	"strings"
	"testing"

	"relay/internal/testkit"
	"relay/relay/gate"
)

// The page for operators names each state of an endpoint and each cause for which it waits.
func TestDocsNameStatesAndCauses(t *testing.T) {
	page, err := os.ReadFile("../docs/operating.md")
	testkit.Must(t, err)
	words := []string{gate.Closed, gate.Opened, gate.HalfOpen}
	for _, state := range []gate.EndpointState{gate.StateActive, gate.StatePaused, gate.StateDisabled, gate.StateRemoved, gate.StateElsewhere} {
		words = append(words, string(state))
	}
	for _, cause := range gate.Causes() {
		words = append(words, string(cause))
	}
	for _, word := range words {
		if !strings.Contains(string(page), "`"+word+"`") && !strings.Contains(string(page), word+",") && !strings.Contains(string(page), word+")") {
			t.Errorf("docs/operating.md does not name %s", word)
		}
	}
}
