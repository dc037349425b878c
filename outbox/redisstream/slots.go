package redisstream

import "sync"

// slots bounds how many settlements wait for their commit. Those of a group come back at once.
type slots struct {
	mu   sync.Mutex
	free int
	more chan struct{} // closed when slots come back; nil while nobody waits
}

// take takes a slot, or returns what to wait for before the next try.
func (x *slots) take() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.free > 0 {
		x.free--
		return nil
	}
	if x.more == nil {
		x.more = make(chan struct{})
	}
	return x.more
}

func (x *slots) give(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.free += n
	if x.more != nil && n > 0 {
		close(x.more)
		x.more = nil
	}
}
