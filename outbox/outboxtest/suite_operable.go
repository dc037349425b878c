package outboxtest

import (
	"context"
	"testing"
	"testing/synctest"

	"relay/outbox"
)

// RunOperable tests that an engine gives the guarantees of outbox.Operable. Each subtest is
// named by the guarantee that it tests. The harness opens outboxes that are an outbox.Operable.
func RunOperable(t *testing.T, e Harness) {
	type test struct {
		name string
		run  func(*suite)
	}
	tests := []test{
		{"G13 all fields come back", testAllFields},
		{"G13 heads of attempts", testHeads},
		{"G21 delivery by its id", testLookupDelivery},
		{"G21 filters of a random history", testFilters},
		{"G21 pages while others work", testPagesAmidWork},
		{"G21 pages beside workers", testPagesBesideWorkers},
		{"G21 offsets", testOffsets},
		{"G21 cursors", testCursors},
		{"G21 foreign cursors", testForeignCursors},
		{"G21 numbers out of bounds", testQueryBounds},
		{"G21 count within a time", testCountEnds},
		{"G21 ages", testAges},
		{"G22 redeliver", testRedeliver},
		{"G22 redeliver elsewhere", testRedeliverElsewhere},
		{"G22 redeliver once", testRedeliverOnce},
		{"G22 needless redeliveries", testNeedless},
		{"G22 needless redeliveries elsewhere", testNeedlessElsewhere},
		{"G21 what was sent again", testResent},
		{"G22 racing redeliveries", testRacingRedeliveries},
		{"G22 retry", testRetryNow},
		{"G22 retry wakes a claim", testRetryWakes},
		{"G22 discard", testDiscard},
		{"G22 discard beside workers", testDiscardBesideWorkers},
		{"G22 erase", testErase},
		{"G22 erase with pending deliveries", testEraseForced},
		{"G22 many changes", testManyChanges},
		{"G22 changes of what is not there", testAbsentChanges},
		{"G22 record", testRecord},
		{"G23 documents", testDocuments},
		{"G23 bounds of documents", testDocumentBounds},
		{"G23 racing writers of a document", testRacingDocuments},
		{"G23 waiting for documents", testAwaitDocuments},
		{"G23 full takes documents", testDocumentsWhileFull},
		{"G24 journal", testJournal},
		{"G24 racing lines", testRacingLines},
		{"G24 full takes lines", testLinesWhileFull},
		{"G25 counts are those of what was settled", testStatistics},
		{"G25 queries", testStatisticsQueries},
		{"G25 beside workers, over reopen", testStatisticsBesideWorkers},
		{"G12 operator's calls after close", testOperableClosed},
		{"G12 operator's calls with an ended context", testOperableCancelled},
	}
	if !e.Sharded { // each shard has its part of a bound
		tests = append(tests,
			test{"G22 redeliver while full", testEditWhileFull},
			test{"G22 record while full", testRecordWhileFull},
			test{"G25 many keys", testManyStatKeys})
	}
	if e.Bubble {
		tests = append(tests, test{"G25 hours and days", testRollUp})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := func(t *testing.T) { test.run(newSuite(t, e)) }
			if e.Bubble {
				synctest.Test(t, body) // inside Run: a bubble cannot hold subtests
				return
			}
			body(t)
		})
	}
}

// operator is the store as an operator sees it.
func (s *suite) operator() outbox.Operable {
	s.Helper()
	return s.operable(s.store)
}

func (s *suite) operable(e outbox.Engine) outbox.Operable {
	s.Helper()
	o, ok := e.(outbox.Operable)
	if !ok {
		s.Fatalf("%T is no outbox.Operable", e)
	}
	return o
}

// operatorCalls are all calls of an operator that a context or Close can end.
func operatorCalls(o outbox.Operable) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"LookupDelivery": func(ctx context.Context) error { _, err := o.LookupDelivery(ctx, "dlv_1"); return err },
		"Deliveries":     func(ctx context.Context) error { _, err := o.Deliveries(ctx, outbox.Query{Limit: 1}); return err },
		"Ages":           func(ctx context.Context) error { _, err := o.Ages(ctx, "a", []float64{1}); return err },
		"Edit": func(ctx context.Context) error {
			_, err := o.Edit(ctx, []outbox.Change{{Action: outbox.Retry, Delivery: "dlv_1"}})
			return err
		},
		"Record": func(ctx context.Context) error {
			_, err := o.Record(ctx, entry("evt_test").Event, "a", tested(outbox.Delivered))
			return err
		},
		"Documents":      func(ctx context.Context) error { _, _, err := o.Documents(ctx, "job", 0); return err },
		"Document":       func(ctx context.Context) error { _, err := o.Document(ctx, "job", "a"); return err },
		"AwaitDocuments": func(ctx context.Context) error { return o.AwaitDocuments(ctx, "job", 0) },
		"PutDocument": func(ctx context.Context) error {
			_, err := o.PutDocument(ctx, outbox.Document{Kind: "job", Name: "a", Body: []byte("{}")})
			return err
		},
		"Append":     func(ctx context.Context) error { _, err := o.Append(ctx, []byte("{}")); return err },
		"Lines":      func(ctx context.Context) error { _, err := o.Lines(ctx, 0, 1); return err },
		"Statistics": func(ctx context.Context) error { _, err := o.Statistics(ctx, outbox.StatQuery{}); return err },
	}
}
