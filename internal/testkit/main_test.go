package testkit

import (
	"testing"
	"time"
)

// A goroutine that is about to end is no leak; one that goes on is.
func TestLeaks(t *testing.T) {
	end := make(chan struct{})
	go func() { <-end }()
	if leaks(0) == nil {
		t.Error("a goroutine that goes on is not found")
	}
	time.AfterFunc(time.Second, func() { close(end) }) // after goleak itself has given up
	Must(t, leaks(patience))
}
