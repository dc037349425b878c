package admin

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Of many who use a code at the same time one does, and to look at it does not use it up.
func TestOneTime(t *testing.T) {
	var told atomic.Int64
	codes := NewOneTime(func() { told.Add(1) })
	code, other := codes.Make("token-a"), codes.Make("token-b")
	if !IsOneTime(code) || IsOneTime("relay_link_x") || code == other {
		t.Errorf("codes %q and %q", code, other)
	}
	for range 3 {
		if token, known := codes.Look(code); token != "token-a" || !known {
			t.Fatalf("a code that was looked at is for %q, known %v", token, known)
		}
	}
	var uses atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if codes.Use(code) {
				uses.Add(1)
			}
		})
	}
	all.Wait()
	if uses.Load() != 1 || told.Load() != 1 {
		t.Errorf("it was used %d times, and told %d times", uses.Load(), told.Load())
	}
	if token, known := codes.Look(code); token != "" || !known {
		t.Errorf("a used code is for %q, known %v", token, known)
	}
	if token, _ := codes.Look(other); token != "token-b" {
		t.Errorf("the other code is for %q", token)
	}
	for _, keeper := range []*OneTime{codes, nil} {
		if token, known := keeper.Look("relay_once_forged"); token != "" || known || keeper.Use("relay_once_forged") || keeper.Use("") {
			t.Error("a forged code holds")
		}
	}
}
