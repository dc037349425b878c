package page

import (
	"fmt"
	"testing"
)

// What begins at the endpoints of one customer ends no screen of another one, however many there are.
func TestSharingIsOfAnAccess(t *testing.T) {
	var s sharing
	now := screenTime()
	fresh := func(access string) bool {
		a, fresh := s.take("screen "+access, access, now)
		if fresh {
			s.made("screen "+access, a, now)
		}
		return fresh
	}
	s.needs("acme", "1")
	fresh("acme")
	for i := range 2 * maxShared {
		s.needs(fmt.Sprint("other ", i), "1")
	}
	if fresh("acme") {
		t.Error("others ended the screen of acme")
	}
	if s.needs("acme", "2"); !fresh("acme") {
		t.Error("the screen of acme is older than what began there")
	}
	if s.needs("acme", "2"); fresh("acme") {
		t.Error("a screen ended although nothing began")
	}
	if len(s.known) > maxShared {
		t.Errorf("%d signatures are kept, want %d at most", len(s.known), maxShared)
	}
}
