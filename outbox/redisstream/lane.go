package redisstream

import "sync"

// lane commits in groups without a timer: while one group is under way the next
// one gathers, and what comes alone goes at once. Each of its workers has one
// group under way; with a single worker groups are in order.
type lane[T any] struct {
	most   int         // weight of a group, unless its first is heavier
	weight func(T) int // of one
	run    func([]T)
	wake   chan struct{}

	mu    sync.Mutex
	queue []T
}

func newLane[T any](workers, most int, weight func(T) int, run func([]T)) *lane[T] {
	return &lane[T]{most: most, weight: weight, run: run, wake: make(chan struct{}, workers)}
}

func (l *lane[T]) put(x T) {
	l.mu.Lock()
	l.queue = append(l.queue, x)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // every worker will look
	}
}

// start runs the workers until stop is closed and the queue is empty.
func (l *lane[T]) start(wg *sync.WaitGroup, stop <-chan struct{}) {
	for range cap(l.wake) {
		wg.Go(func() {
			for {
				if group := l.take(); len(group) > 0 {
					l.run(group)
					continue
				}
				select {
				case <-l.wake:
				case <-stop:
					if group := l.take(); len(group) > 0 {
						l.run(group)
						continue
					}
					return
				}
			}
		})
	}
}

// take returns the next group, nil when there is none.
func (l *lane[T]) take() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, weight := 0, 0
	for n < len(l.queue) {
		weight += l.weight(l.queue[n])
		if n > 0 && weight > l.most {
			break
		}
		n++
	}
	group := l.queue[:n:n]
	l.queue = l.queue[n:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	return group
}
