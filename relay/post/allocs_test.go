//go:build !race

package post

import "testing"

// A request on a connection that was kept makes nothing but the body of the answer.
func TestAllocationsOfSend(t *testing.T) {
	for answer, want := range map[string]float64{
		ok + "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok": 1,
		ok + "Content-Length: 0\r\n\r\n":  0,
		"HTTP/1.1 204 No Content\r\n\r\n": 0,
	} {
		s, _, r := keeper(t, answer)
		if n := testing.AllocsPerRun(100, func() { s.Send(t.Context(), r) }); n != want {
			t.Errorf("%q: %v objects, want %v", answer, n, want)
		}
	}
}

// Checking a connection that was idle for a while makes nothing.
func TestAllocationsOfIdleCheck(t *testing.T) {
	m := meet(t, false)
	l, theirs := m.take(t)
	defer theirs.Close()
	defer m.pool.drop(l)
	if n := testing.AllocsPerRun(100, func() {
		if !l.usable(l.since, true) {
			t.Fatal("the connection is not usable")
		}
	}); n != 0 {
		t.Errorf("%v objects, want none", n)
	}
}
