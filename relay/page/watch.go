package page

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"relay/relay/admin"
)

const watchEvery = time.Second

// signature is what needs a person without times and figures, in short: another one means that something began, ended, or
// became something else. What only statistics tell is left out.
func (v *overviewView) signature() string {
	h := sha256.New()
	for i := range v.Needs {
		if n := &v.Needs[i]; !n.slow {
			_, _ = fmt.Fprintf(h, "%s\n%s\n%s\n%s\n", n.Class, n.About, n.key, n.DoKey) // a hash takes all
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// needsNow is the signature of what needs a person at present. Viewers with the same access share it.
func (c *call) needsNow(ctx context.Context) (string, error) {
	access := c.accessKey()
	key := needsKey + access
	a, fresh := c.p.sharing.take(key, access, c.p.Now())
	if fresh {
		c.makeNeeds(key, a)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if a.err != nil {
		return "", a.err
	}
	return a.answer.body.String(), nil
}

// makeNeeds makes the signature. A panic is an error of it alone: no server recovers it here, and the overview, which asks the
// same, has it, too.
func (c *call) makeNeeds(key string, a *sharedAnswer) {
	defer func() { _ = recover() }()
	c.make(key, a, func(c *call) error {
		now, err := c.readNeeds()
		if err == nil {
			c.p.sharing.needs(a.access, now)
			_, err = c.w.Write([]byte(now))
		}
		return err
	})
}

// readNeeds asks the API for what the overview makes them of, without statistics.
func (c *call) readNeeds() (string, error) {
	var a overviewAnswers
	if err := c.get("/v1/endpoints", url.Values{"sort": {"attention"}, "limit": {"20"}}, &a.endpoints); err != nil {
		return "", err
	}
	v := &overviewView{}
	if c.whole() {
		var err error
		if a.ready, err = c.ready(); err == nil {
			err = c.get("/v1/alerts", nil, &a.alerts)
		}
		if err != nil {
			return "", err
		}
	}
	c.overviewNeeds(v, &a)
	return v.signature(), nil
}

// watch tells the viewer within about two seconds that something else needs a person than what it knows.
func (s *stream) watch(ctx context.Context, known string) {
	select {
	case <-s.begun:
	case <-ctx.Done():
		return
	}
	every := time.NewTicker(watchEvery)
	defer every.Stop()
	for {
		if now, err := s.c.needsNow(ctx); err == nil && now != known {
			known = now
			if s.tell() != nil {
				return // the viewer has gone, which ends the rest, too
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// tell writes the event, which carries nothing: the viewer reads the screen again. The deadline is that of the API's tail, which
// sets it again as long as the viewer takes what is written, and shortens it once Relay stops.
func (s *stream) tell() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := http.NewResponseController(s.c.w)
	if err := s.write("needs", ""); err != nil {
		return err
	}
	return to.Flush()
}

// follow is what a viewer gets of the API's tail, and beside it what needs a person, if the viewer says what it knows of that.
func (s *stream) follow(r *http.Request, known []string) {
	ctx, stop := context.WithCancel(r.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if len(known) > 0 {
			s.watch(ctx, known[0])
		}
	}()
	defer func() { stop(); <-watched }() // nothing is written once the answer has ended
	s.c.p.API.ServeHTTP(s, r.WithContext(admin.WithHolds(r.Context(), s.c.holds)))
}
