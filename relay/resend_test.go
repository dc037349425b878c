package main

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
	"relay/relay/admin"
)

// Support sends the failures of an endpoint again, and again, while the receiver refuses them, and after it was mended. Each
// run sends the event once, and none after it has arrived.
func TestSendAgainAndAgain(t *testing.T) {
	t.Parallel() // it mostly waits
	t.Run("sqlite", func(t *testing.T) { testSendAgain(t, "") })
	t.Run("redis", func(t *testing.T) {
		testSendAgain(t, fmt.Sprintf("outbox \"redis\" {\n url = %q\n shards = 2\n}", redistest.Start(t).URL()))
	})
}

// total is all requests, refused or not.
func (o *outage) total() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.refused.Load()
	for _, times := range o.got {
		n += int64(times)
	}
	return n
}

func testSendAgain(t *testing.T, outbox string) {
	o := &outage{got: map[string]int{}}
	receiver := httptest.NewServer(o)
	defer receiver.Close()
	p := newProcess(t, receiver.URL, "a")
	if outbox != "" {
		p.configure(outbox, "15s", receiver.URL)
	}
	p.start()
	p.await()
	p.acceptMany(1)
	ended := func(n int64) {
		t.Helper()
		testkit.Until(t, "end of the deliveries", func() bool { c := p.counts(); return c.Pending == 0 && c.Failed+c.Delivered == n })
	}
	ended(1)
	matched := []int64{1, 2, 3, 4, 4}
	for run, sent := range []int64{1, 1, 1, 1, 0} {
		if run == 3 {
			o.mended.Store(true)
		}
		before := o.total()
		wait(t.Context(), 10*time.Millisecond) // what was made now is in the past of the job
		var count admin.BulkAnswer
		testkit.Until(t, "a count that ends in its time", func() bool {
			count = askAdmin[admin.BulkAnswer](p, 200, "POST", "/v1/redeliveries", `{"endpoint":"a","state":"failed","dry_run":true}`)
			return !count.Matched.AtLeast && count.Resent != nil && !count.Resent.AtLeast
		})
		if count.Matched.N != matched[run] || count.Resent.N != matched[run]-sent {
			t.Errorf("run %d: %+v match, %+v were sent again, want %d and %d", run, count.Matched, count.Resent, matched[run], matched[run]-sent)
		}
		made := askAdmin[admin.BulkAnswer](p, 202, "POST", "/v1/redeliveries", `{"endpoint":"a","state":"failed"}`)
		var job admin.Job
		testkit.Until(t, "end of the job", func() bool {
			job = askAdmin[admin.Job](p, 200, "GET", "/v1/jobs/"+made.ID, "")
			return !job.Ended.IsZero()
		})
		reason := "repeat"
		if sent == 0 {
			reason = "delivered_since"
		}
		if job.Done != sent || job.Skipped[reason] != matched[run]-sent {
			t.Errorf("run %d: %+v, want %d sent and the others skipped as %s", run, job, sent, reason)
		}
		ended(min(int64(run)+2, 5))
		if got := o.total() - before; got != sent {
			t.Errorf("run %d: the receiver got %d requests, want %d", run, got, sent)
		}
	}
	list := askAdmin[admin.DeliveryList](p, 200, "GET", "/v1/deliveries?state=failed&resent=false", "")
	if len(list.Items) > 0 || len(o.got) != 1 {
		t.Errorf("failed in the end: %+v, events %v", list.Items, o.got)
	}
	for _, d := range askAdmin[admin.DeliveryList](p, 200, "GET", "/v1/deliveries", "").Items {
		if d.Resent != (d.State == "failed") {
			t.Errorf("%+v", d)
		}
	}
}
