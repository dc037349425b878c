package redisstream

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
)

// The clock is known to the duration of a call, however slow some calls are, and does not go
// back and forth with them.
func TestClockIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = -3 * time.Hour
		var c clock
		if now := time.Now(); !c.at(now).Equal(now) || !c.moment(now).Equal(now) {
			t.Error("a clock that is not known is another one than this machine's")
		}
		random := rand.New(rand.NewPCG(1, 2))
		known := 10 * time.Second // how exact it must be
		for i := range 1000 {
			sent := time.Now()
			there, back := time.Duration(random.IntN(1000))*time.Microsecond, time.Duration(random.IntN(1000))*time.Microsecond
			if i%10 == 3 {
				back = time.Duration(random.IntN(3000)) * time.Millisecond // it stalls
			}
			time.Sleep(there)
			theirs := time.Now().Add(ahead)
			time.Sleep(back)
			received := time.Now()
			c.observe(theirs, sent, received)
			known = min(known, received.Sub(sent))
			now := time.Now()
			if off := c.at(now).Sub(now.Add(ahead)); off.Abs() > known {
				t.Fatalf("after %d calls the clock is %v off, known to %v", i+1, off, known)
			}
			if back := c.moment(c.at(now)); !back.Equal(now) {
				t.Fatalf("%v becomes %v", now, back)
			}
			time.Sleep(time.Second)
		}
		if got := c.ahead(time.Now()); (got + ahead).Abs() > known {
			t.Errorf("this machine is %v ahead, want %v", got, -ahead)
		}
	})
}

// A server with another clock, as after a failover, is followed at once.
func TestClockOfAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		for _, ahead := range []time.Duration{0, time.Minute, -time.Hour} {
			sent := time.Now()
			time.Sleep(time.Millisecond)
			c.observe(time.Now().Add(ahead), sent, time.Now())
			if got := c.ahead(time.Now()) + ahead; got.Abs() > time.Millisecond {
				t.Errorf("off by %v", got)
			}
		}
	})
}

func TestSkewIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		sh := &shard{s: &Store{log: zerolog.New(&log)}}
		for _, ahead := range []time.Duration{0, 900 * time.Millisecond, time.Hour, time.Hour + 500*time.Millisecond, 2 * time.Hour, -2 * time.Second, 700 * time.Millisecond, 0} {
			now := time.Now()
			sh.clock.observe(now.Add(-ahead), now, now)
			sh.tellSkew(now)
		}
		if n, again := log.Count(`"code":"clock_skew"`), log.Count("agree again"); n != 3 || again != 1 {
			t.Errorf("%d warnings and %d ends, want 3 and 1:\n%s", n, again, &log)
		}
	})
}
