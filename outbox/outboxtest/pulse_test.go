package outboxtest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan time.Duration, 1)
		p := startPulse(t.Context(), func(context.Context) error {
			select {
			case d := <-hang:
				time.Sleep(d)
			default:
			}
			return nil
		})
		defer p.stop()
		time.Sleep(time.Second)
		if d := p.stalls(); d != 0 {
			t.Errorf("a machine at rest stalls for %s", d)
		}
		hang <- 600 * time.Millisecond
		time.Sleep(100 * time.Millisecond)
		if d := p.stalls(); d < 550*time.Millisecond || d > 650*time.Millisecond {
			t.Errorf("a stall of 600ms that goes on is %s", d)
		}
		p.without(func() { time.Sleep(time.Second) })
		if d := p.stalls(); d < 1500*time.Millisecond {
			t.Errorf("with a second more it is %s", d)
		}
	})
}
