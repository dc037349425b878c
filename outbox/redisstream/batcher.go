package redisstream

import "sync"

// batcher commits in groups without a timer: while one group is under way the next
// one gathers, and what comes alone goes at once. Each of its workers has one
// group under way; with a single worker groups are in order.
type batcher[T any] struct {
	most   int         // weight of a group, unless its first is heavier
	weight func(T) int // of one
	run    func([]T)
	wake   chan struct{}

	mu    sync.Mutex
	queue []T
}

func newBatcher[T any](workers, most int, weight func(T) int, run func([]T)) *batcher[T] {
	return &batcher[T]{most: most, weight: weight, run: run, wake: make(chan struct{}, workers)}
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
				if group := b.take(); len(group) > 0 {
					b.run(group)
					continue
				}
				select {
				case <-b.wake:
				case <-stop:
					if group := b.take(); len(group) > 0 {
						b.run(group)
						continue
					}
					return
				}
			}
		})
	}
}

// take returns the next group, nil when there is none.
func (b *batcher[T]) take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, weight := 0, 0
	for n < len(b.queue) {
		weight += b.weight(b.queue[n])
		if n > 0 && weight > b.most {
			break
		}
		n++
	}
	group := b.queue[:n:n]
	b.queue = b.queue[n:]
	if len(b.queue) == 0 {
		b.queue = nil
	}
	return group
}
