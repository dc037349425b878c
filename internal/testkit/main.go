package testkit

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, and fails if goroutines of theirs go on. Those that are about to end have a minute for it:
// on a loaded machine the half second of goleak.VerifyTestMain is too short, and a connection of net/http/httptest may take as long by
// itself.
func Main(m *testing.M, ignored ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := leaks(patience, ignored...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines go on after the tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks returns an error if goroutines go on for so long.
func leaks(within time.Duration, ignored ...goleak.Option) error {
	for end := time.Now().Add(within); ; {
		err := goleak.Find(ignored...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
