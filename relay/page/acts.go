package page

import (
	"errors"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// acts are forms that act, by their keys.
type acts struct {
	came *lru.Cache[string, step] // where those that acted went on to

	mu  sync.Mutex
	now map[string]*acting
}

// acting is a form that acts. Its other fields are there when done is closed.
type acting struct {
	done chan struct{}
	to   step
	err  error
}

func newActs(remembered int) *acts {
	s := &acts{now: map[string]*acting{}}
	s.came, _ = lru.New[string, step](remembered) // the only error is a size that is not positive
	return s
}

// take returns what a form comes to, and whether it is new: then the caller acts, by do.
func (s *acts) take(key string) (a *acting, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to, did := s.came.Get(key); did {
		a = &acting{done: make(chan struct{}), to: to}
		close(a.done)
		return a, false
	}
	if a = s.now[key]; a != nil {
		return a, false
	}
	a = &acting{done: make(chan struct{})}
	s.now[key] = a
	return a, true
}

// do acts. What failed may be tried again.
func (s *acts) do(key string, a *acting, act func() (step, error)) {
	a.err = errors.New("the form did not act") // by a panic
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.now, key); a.err == nil {
			s.came.Add(key, a.to)
		}
		close(a.done)
	}()
	a.to, a.err = act()
}
