package redisstream

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// Light groups go side by side; behind a heavy one the next group waits and grows.
func TestBatcherWaitsForHeavyGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ran [][]int
		end := make(chan struct{})
		b := newBatcher(3, 100, 8, func(n int) int { return n }, func(group []int) {
			mu.Lock()
			ran = append(ran, group)
			mu.Unlock()
			<-end
		})
		groups := func() [][]int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(ran)
		}
		var workers sync.WaitGroup
		stop := make(chan struct{})
		b.start(&workers, stop)

		b.put(1)
		synctest.Wait()
		b.put(8)
		if got := groups(); len(got) != 2 {
			t.Fatalf("beside a light group %v run, want 2 groups", got)
		}
		for n := 1; n <= 3; n++ {
			b.put(n)
			synctest.Wait()
		}
		if got := groups(); len(got) != 2 {
			t.Errorf("beside a heavy group %v run, want the same 2 groups", got)
		}
		close(stop)
		end <- struct{}{}
		end <- struct{}{}
		if got := groups(); len(got) != 3 || !slices.Equal(got[2], []int{1, 2, 3}) {
			t.Errorf("after the heavy group %v ran, want one group of 3 last", got)
		}
		close(end)
		workers.Wait()
	})
}
