package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/jobs"
)

// work runs the jobs until the test or the call of stop ends.
func (o *operator) work() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		o.options.Jobs.Run(ctx)
		close(ended)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		time.Sleep(time.Second)
		const filter = `"event":"evt_1"`
		dry := done[BulkAnswer](o, 200, "POST", "/v1/redeliveries", `{`+filter+`,"dry_run":true}`)
		if dry.ID != "" || dry.Matched.N != 1 || dry.Matched.AtLeast || !dry.DryRun || dry.Filter["state"][0] != "failed" || len(dry.Filter["until"]) != 1 {
			t.Errorf("dry run: %+v", dry)
		}
		if got := done[JobList](o, 200, "GET", "/v1/jobs", ""); len(got.Items) != 0 || got.Next != nil || got.Total.N != 0 {
			t.Errorf("jobs after a dry run: %+v", got)
		}
		made := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{`+filter+`,"state":["failed","delivered"],"rate":0.5,"since":"2h"}`)
		if made.Matched.N != 2 || made.ID == "" || made.DryRun {
			t.Errorf("redeliveries: %+v", made)
		}
		e := o.lastAudit("redeliver", "job "+made.ID)
		if *e.Count != (Total{N: 2}) || !strings.Contains(string(e.After), `"rate":0.5`) || !strings.Contains(string(e.After), `"event":["evt_1"]`) {
			t.Errorf("audit: %+v", e)
		}
		job := done[Job](o, 200, "GET", "/v1/jobs/"+made.ID, "")
		if job.State != "waiting" || job.Action != "redeliver" || job.Matched.N != 2 || job.Who != "admin token" || job.Rate != 0.5 || job.Skipped == nil || job.Created.IsZero() {
			t.Errorf("job: %+v", job)
		}
		stop := o.work()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		job = done[Job](o, 200, "GET", "/v1/jobs/"+made.ID, "")
		if job.State != "done" || job.Done != 1 || job.Seen != 2 || job.Skipped["on_its_way"] != 1 || job.Ended.IsZero() || job.Relay != "relay-1" {
			t.Errorf("job: %+v", job)
		}
		if n := len(done[EventWhole](o, 200, "GET", "/v1/events/evt_1", "").Deliveries); n != 5 {
			t.Errorf("%d deliveries of the event, want 5", n)
		}
		o.refuses(409, problem.JobEnded, "id", "POST", "/v1/jobs/"+made.ID+"/cancel", "")

		// To another endpoint: while a delivery of the event waits there it does nothing.
		to := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{`+filter+`,"to":"archive"}`)
		time.Sleep(time.Minute)
		if job := done[Job](o, 200, "GET", "/v1/jobs/"+to.ID, ""); job.State != "done" || job.Done != 0 || job.Skipped["on_its_way"] != 1 {
			t.Errorf("job: %+v", job)
		}

		// Pending ones, erasures, and a job that is cancelled. Nobody works on the first two while they are made.
		stop()
		discard := done[BulkAnswer](o, 202, "POST", "/v1/discards", `{"endpoint":["archive","billing"]}`)
		retry := done[BulkAnswer](o, 202, "POST", "/v1/retries", `{"state":"held"}`)
		if discard.Matched.N != 2 || retry.Matched.N != 1 || len(discard.Filter["state"]) != 2 {
			t.Errorf("discards: %+v, retries: %+v", discard, retry)
		}
		stop = o.work()
		time.Sleep(time.Minute)
		to = done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{`+filter+`,"to":"archive"}`)
		time.Sleep(time.Minute)
		if job := done[Job](o, 200, "GET", "/v1/jobs/"+to.ID, ""); job.State != "done" || job.Done != 1 || job.Skipped["on_its_way"] != 0 {
			t.Errorf("job after what waited there was discarded: %+v", job)
		}
		erase := done[BulkAnswer](o, 202, "POST", "/v1/erasures", `{"until":"0s","force":true}`)
		time.Sleep(time.Minute)
		if job := done[Job](o, 200, "GET", "/v1/jobs/"+erase.ID, ""); job.State != "done" || job.Done != 1 {
			t.Errorf("job: %+v", job)
		}
		stop()
		o.accept(t, outbox.Event{ID: "evt_3", Type: "t", Data: []byte(`1`)}, "archive")
		time.Sleep(time.Second)
		last := done[BulkAnswer](o, 202, "POST", "/v1/discards", `{"endpoint":"archive"}`)
		cancelled := done[Job](o, 200, "POST", "/v1/jobs/"+last.ID+"/cancel", "")
		if cancelled.State != "cancelled" || cancelled.CancelledBy != "admin token" {
			t.Errorf("cancelled: %+v", cancelled)
		}
		if e := o.lastAudit("cancel", "job "+last.ID); !strings.Contains(string(e.After), `"state":"cancelled"`) {
			t.Errorf("the audit of a job that nobody works on: %s", e.After)
		}
		o.refuses(409, problem.JobEnded, "id", "POST", "/v1/jobs/"+last.ID+"/cancel", "")

		// Pages.
		var ids []string
		path := "/v1/jobs?limit=2"
		for {
			list := done[JobList](o, 200, "GET", path, "")
			if list.Total.N != 7 {
				t.Errorf("total: %+v", list.Total)
			}
			for _, j := range list.Items {
				ids = append(ids, j.ID)
			}
			if list.Next == nil {
				break
			}
			path = "/v1/jobs?limit=2&cursor=" + *list.Next
		}
		if len(ids) != 7 || ids[0] != last.ID || ids[6] != made.ID {
			t.Errorf("jobs: %v", ids)
		}
		o.refuses(400, problem.InvalidCursor, "cursor", "GET", "/v1/jobs?cursor=7", "")
		o.refuses(404, problem.JobNotFound, "id", "GET", "/v1/jobs/job_absent", "")
		o.refuses(404, problem.JobNotFound, "id", "POST", "/v1/jobs/"+strings.Repeat("x", 300)+"/cancel", "")
		o.refuses(404, problem.OtherKind, "id", "GET", "/v1/jobs/evt_1", "")
		o.refuses(404, problem.OtherKind, "id", "POST", "/v1/jobs/dlv_1/cancel", "")
	})
}

func TestJobsRefused(t *testing.T) {
	o := newOperator(t)
	time.Sleep(2 * time.Millisecond)
	paths := []string{"/v1/redeliveries", "/v1/retries", "/v1/discards", "/v1/erasures"}
	for _, path := range paths {
		for body, want := range map[string]struct {
			status int
			code   problem.Code
			field  string
		}{
			``:                                       {400, problem.EmptyBody, ""},
			`{`:                                      {400, problem.InvalidJSON, ""},
			`[]`:                                     {400, problem.InvalidJSON, ""},
			`{}`:                                     {400, problem.EmptyFilter, ""},
			`{"dry_run":true}`:                       {400, problem.EmptyFilter, ""},
			`{"endpoint":"nowhere"}`:                 {400, problem.InvalidParameter, "endpoint"},
			`{"tenant":"nobody"}`:                    {422, problem.NothingMatched, ""},
			`{"tenant":"nobody","dry_run":true}`:     {422, problem.NothingMatched, ""},
			`{"endpoint":""}`:                        {400, problem.InvalidParameter, "endpoint"},
			`{"endpoints":"billing"}`:                {400, problem.UnknownParameter, "endpoints"},
			`{"limit":10}`:                           {400, problem.UnknownParameter, "limit"},
			`{"cursor":"x"}`:                         {400, problem.UnknownParameter, "cursor"},
			`{"offset":10}`:                          {400, problem.UnknownParameter, "offset"},
			`{"order":"oldest"}`:                     {400, problem.UnknownParameter, "order"},
			`{"state":"broken"}`:                     {400, problem.InvalidParameter, "state"},
			`{"status":"abc"}`:                       {400, problem.InvalidParameter, "status"},
			`{"event":"dlv_1"}`:                      {400, problem.InvalidParameter, "event"},
			`{"since":"yesterday"}`:                  {400, problem.InvalidParameter, "since"},
			`{"data.other":"1"}`:                     {400, problem.NotIndexed, "data.other"},
			`{"endpoint":"billing","rate":0}`:        {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","rate":1e9}`:      {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","rate":"10"}`:     {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","dry_run":"yes"}`: {400, problem.InvalidParameter, "dry_run"},
			`{"endpoint":"billing","dry_run":1}`:     {400, problem.InvalidParameter, "dry_run"},
		} {
			o.refuses(want.status, want.code, want.field, "POST", path, body)
		}
		o.refuses(413, problem.BodyTooLarge, "", "POST", path, `{"endpoint":"`+strings.Repeat("x", 64<<10)+`"}`)
	}
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/redeliveries", `{"state":"pending"}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/redeliveries", `{"state":["pending","held"]}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/retries", `{"state":"failed"}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/discards", `{"state":"success"}`)
	o.refuses(404, problem.EndpointNotFound, "to", "POST", "/v1/redeliveries", `{"endpoint":"billing","to":"nowhere"}`)
	o.refuses(400, problem.InvalidParameter, "to", "POST", "/v1/redeliveries", `{"endpoint":"billing","to":["search"]}`)
	o.refuses(400, problem.UnknownParameter, "to", "POST", "/v1/retries", `{"endpoint":"billing","to":"search"}`)
	o.refuses(400, problem.UnknownParameter, "force", "POST", "/v1/discards", `{"endpoint":"billing","force":true}`)
	o.refuses(400, problem.InvalidParameter, "force", "POST", "/v1/erasures", `{"endpoint":"billing","force":"yes"}`)

	for n := range jobs.MaxOpen {
		_, err := o.PutDocument(t.Context(), outbox.Document{Kind: "job", Name: fmt.Sprintf("job_%d", n), Body: fmt.Appendf(nil, `{"id":"job_%d","state":"waiting"}`, n)})
		if err != nil {
			t.Fatal(err)
		}
	}
	o.refuses(409, problem.TooManyJobs, "", "POST", "/v1/redeliveries", `{"endpoint":"search"}`)
}
