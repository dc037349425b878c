package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// streamed is an answer that is read while it is written.
type streamed struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (s *streamed) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ResponseRecorder.Write(b)
}

func (s *streamed) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Body.String()
}

// What begins to need a person, or ends to, is told within two seconds, once to each viewer, and the screen that is then read is
// no older. What stays as it is, with other figures, is not told.
func TestNeedsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := troubled()
		var alert, failing atomic.Bool
		var value atomic.Int64
		p := New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/tail":
				if r.URL.Query().Has("needs") {
					t.Error("the API is asked for needs")
				}
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return
			case "/v1/alerts":
				text := `{"firing":[],"alerts":[]}`
				if alert.Load() {
					text = `{"firing":[{"alert":"slow","about":"crm","on":"p95","value":"` + strings.Repeat("9", int(value.Add(1)%5)+1) + ` s","limit":"1 s","since":"2026-11-30T11:50:00Z"}],"alerts":[]}`
				}
				_, _ = w.Write([]byte(text))
				return
			case "/v1/endpoints":
				if failing.Load() {
					_, _ = w.Write([]byte(`{"endpoints":[{"name":"shop","state":"active","enabled":true,"failing":{"since":"2026-11-30T11:39:00Z","code":"http_500","attempts":3},"deliveries":{"pending":1}}],"total":1}`))
					return
				}
				_, _ = w.Write([]byte(`{"endpoints":[],"total":0}`))
				return
			}
			_, _ = w.Write([]byte(answers[r.URL.Path]))
		})})
		overview := func() string { return visit(t, p, "/").Body.String() }
		live := regexp.MustCompile(`data-live="([^"]+)"`).FindStringSubmatch(overview())
		if live == nil {
			t.Fatal("the overview is not live")
		}
		ctx, end := context.WithCancel(t.Context())
		var viewers []*streamed
		var all sync.WaitGroup
		for range 3 {
			w := &streamed{ResponseRecorder: httptest.NewRecorder()}
			viewers = append(viewers, w)
			all.Go(func() {
				p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/live?"+strings.ReplaceAll(live[1], "&amp;", "&"), nil))
			})
		}
		told := 0
		expect := func(what string, n int) {
			t.Helper()
			told += n
			for i, w := range viewers {
				if got := strings.Count(w.text(), "event: needs\n"); got != told {
					t.Errorf("%s: viewer %d was told %d times, want %d", what, i, got, told)
				}
			}
		}
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		expect("nothing happened", 0)
		for _, x := range []struct {
			what   string
			change func()
			shown  string
		}{
			{"an alert fires", func() { alert.Store(true) }, "slow"},
			{"an endpoint begins to fail", func() { failing.Store(true) }, "shop"},
			{"it recovers", func() { failing.Store(false) }, "slow"},
		} {
			overview() // is kept for others
			x.change()
			time.Sleep(2*time.Second + 10*time.Millisecond)
			synctest.Wait()
			expect(x.what, 1)
			if !strings.Contains(overview(), x.shown) {
				t.Errorf("%s: the overview does not say so", x.what)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			expect(x.what+", and then only figures change", 0)
		}
		end()
		all.Wait()
	})
}

// deadlined notes the deadline of what is written.
type deadlined struct {
	streamed
	until time.Time
}

func (d *deadlined) SetWriteDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = t
	return nil
}

// A viewer that is told leaves the deadline as it is, which is short when Relay stops.
func TestTellingKeepsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := troubled()
		soon := time.Now().Add(time.Second)
		p := New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/tail" {
				w.WriteHeader(http.StatusOK)
				to := http.NewResponseController(w)
				_ = to.Flush()
				_ = to.SetWriteDeadline(soon)
				<-r.Context().Done()
				return
			}
			_, _ = w.Write([]byte(answers[r.URL.Path]))
		})})
		ctx, end := context.WithTimeout(t.Context(), 10*time.Second)
		defer end()
		w := &deadlined{streamed: streamed{ResponseRecorder: httptest.NewRecorder()}}
		p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/live?needs=others", nil))
		if !strings.Contains(w.text(), "event: needs\n") || !w.until.Equal(soon) {
			t.Errorf("the deadline is %v, want %v: %s", w.until, soon, w.text())
		}
	})
}

// A panic of the API while it is asked what needs a person ends neither the process nor what is live.
func TestWatchOutlivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := troubled()
		var broken atomic.Bool
		broken.Store(true)
		p := New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v1/tail":
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return
			case broken.Load():
				panic("broken")
			}
			_, _ = w.Write([]byte(answers[r.URL.Path]))
		})})
		ctx, end := context.WithCancel(t.Context())
		w := &streamed{ResponseRecorder: httptest.NewRecorder()}
		var all sync.WaitGroup
		all.Go(func() { p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/live?needs=others", nil)) })
		time.Sleep(5 * time.Second)
		broken.Store(false)
		time.Sleep(5 * time.Second)
		end()
		all.Wait()
		if got := strings.Count(w.text(), "event: needs\n"); got != 1 {
			t.Errorf("told %d times: %s", got, w.text())
		}
	})
}
