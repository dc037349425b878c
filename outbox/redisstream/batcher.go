package redisstream

import "sync"

// batcher commits in groups without a timer: while one group is under way the next
// one gathers, and what comes alone goes at once. Each of its workers has one
// group under way; with a single worker groups are in order.
type batcher[T any] struct {
	most   int         // weight of a group, unless its first is heavier
	alone  int         // weight under way from which on the next group waits, so that it grows
	weight func(T) int // of one
	run    func([]T)
	wake   chan struct{}

	mu       sync.Mutex
	queue    []T
	underWay int // weight
}

func newBatcher[T any](workers, most, alone int, weight func(T) int, run func([]T)) *batcher[T] {
	return &batcher[T]{most: most, alone: alone, weight: weight, run: run, wake: make(chan struct{}, workers)}
}

func (b *batcher[T]) put(x T) {
	b.mu.Lock()
	b.queue = append(b.queue, x)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // every worker will look
	}
}

// start runs the workers until stop is closed and the queue is empty.
func (b *batcher[T]) start(wg *sync.WaitGroup, stop <-chan struct{}) {
	for range cap(b.wake) {
		wg.Go(func() {
			for {
				for b.runNext() {
				}
				select {
				case <-b.wake:
				case <-stop:
					if b.runNext() {
						continue
					}
					return
				}
			}
		})
	}
}

// runNext runs the next group, and returns false when there is none to run now: the queue is
// empty, or a heavy group is under way, whose worker comes for what waits.
func (b *batcher[T]) runNext() bool {
	group, weight := b.take()
	if len(group) == 0 {
		return false
	}
	b.run(group)
	b.mu.Lock()
	b.underWay -= weight
	b.mu.Unlock()
	return true
}

// take returns the next group and its weight.
func (b *batcher[T]) take() (group []T, weight int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.underWay >= b.alone {
		return nil, 0
	}
	n := 0
	for n < len(b.queue) {
		next := weight + b.weight(b.queue[n])
		if n > 0 && next > b.most {
			break
		}
		weight = next
		n++
	}
	group = b.queue[:n:n]
	b.queue = b.queue[n:]
	if len(b.queue) == 0 {
		b.queue = nil
	}
	b.underWay += weight
	return group, weight
}
