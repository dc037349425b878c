package outboxtest

import (
	"testing"
	"testing/synctest"

	"relay/outbox"
)

// Harness is what the suite must know of an engine.
type Harness struct {
	// Open returns a fresh, empty outbox. The suite closes it.
	Open func(t *testing.T) outbox.Engine

	// Reopen ends s as a crash would, with no more grace than the engine needs to
	// let go of it, and opens the same outbox again.
	Reopen func(t *testing.T, s outbox.Engine) outbox.Engine

	// OpenSized is Open with a limit of maxBytes on what is kept.
	OpenSized func(t *testing.T, maxBytes int64) outbox.Engine

	// Join opens the outbox of s for another process, while s goes on; nil when it
	// has one owner at a time. The suite closes it, before s or after.
	Join func(t *testing.T, s outbox.Engine) outbox.Engine

	// Bubble runs every subtest in a synctest bubble, where time is virtual: leases of
	// seconds and windows of a day cost nothing. Without it time is real and leases are
	// short; what takes hours (the idempotency window) is not tested then.
	Bubble bool

	// SingleOwner says that the outbox has one owner at a time, so that Reopen ends
	// the leases of the one before. Else they last to their end.
	SingleOwner bool

	// Sharded says that requests go to different shards, each whole: an id is known
	// again where its request began with it, and not among other events; what is in
	// different shards has no order; and marks, which are known in one shard, are refused.
	Sharded bool
}

// Run tests that an engine gives the guarantees of outbox.Store. Each subtest is
// named by the guarantee that it tests.
func Run(t *testing.T, e Harness) {
	type test struct {
		name string
		run  func(*suite)
	}
	tests := []test{
		{"G1 accepted survives reopen", testAcceptedSurvives},
		{"G2 batch of a thousand", testBatchOfThousand},
		{"G2 crash leaves no half batch", testCrashInAccept},
		{"G4 backlog of another endpoint", testBacklogElsewhere},
		{"G4 waiting claims wake at their endpoint", testWaitingClaims},
		{"G4 event without endpoints", testNoEndpoints},
		{"G5 exclusive claim", testExclusiveClaim},
		{"G5 sixty-four racing claimers", testRacingClaimers},
		{"G6 lease ends", testLeaseEnds},
		{"G6 waiting claim takes over", testWaitingClaimTakesOver},
		{"G7 settle as each state", testSettleStates},
		{"G7 settled is settled", testSettleTwice},
		{"G7 lookup shows every attempt", testLookup},
		{"G7 crash leaves no half settlement", testCrashInSettle},
		{"G8 retry waits for its due time", testRetryWaits},
		{"G8 retry due at once", testRetryAtOnce},
		{"G8 attempts survive reopen", testAttemptsSurvive},
		{"G9 repeated id", testRepeatedID},
		{"G9 repeated in another trace", testRepeatedTrace},
		{"G9 repeated key", testRepeatedKey},
		{"G9 one id twice in a batch", testIDTwiceInBatch},
		{"G9 repeated after reopen", testRepeatedAfterReopen},
		{"G9 repeated after reap", testRepeatedAfterReap},
		{"G10 full and freed", testFull},
		{"G10 full leaves no half batch", testFullBatch},
		{"G11 reap keeps what is pending", testReapKeepsPending},
		{"G11 reap by age and state", testReapByAge},
		{"G12 cancelled context", testCancelledContext},
		{"G12 close unblocks claims", testCloseUnblocks},
		{"G12 calls after close", testCallsAfterClose},
		{"G12 close amid work", testCloseAmidWork},
		{"G13 any bytes", testAnyBytes},
		{"G13 sixteen mebibytes", testLargeData},
		{"G13 event fields", testEventFields},
		{"G14 release hands back at once", testRelease},
		{"G14 released out of order", testReleaseMany},
		{"G15 counts over reopen", testCountsSurvive},
		{"G15 counts while working", testCountsWhileWorking},
		{"G16 claims of a dead owner", testDeadOwner},
		{"G17 backlog and lane drain", testFreshDrain},
		{"G17 racing claimers of fresh and old", testRacingFresh},
		{"G18 notes", testNotes},
		{"G18 racing writers of a note", testRacingNotes},
		{"G18 waiting for notes", testAwaitNotes},
		{"G18 full takes notes", testNotesWhileFull},
		{"G19 racing claimers stay within it", testFleetRacing},
		{"G20 failed from the start", testFailedFromStart},
		{"G20 failed from the start is kept like failed", testFailedIsKept},
		{"G26 each way for work to come calls", testReady},
		{"G26 the end of a lease calls", testReadyLeaseEnds},
		{"G26 withdrawn", testReadyWithdrawn},
		{"G26 close calls", testReadyClosed},
		{"G26 no call is lost", testReadyRacing},
		{"model", testModel},
	}
	if !e.Sharded {
		tests = append(tests,
			test{"G2 refused batch leaves nothing", testRefusedBatch},
			test{"G3 first claims in order of accept", testFirstClaimsInOrder},
			test{"G8 oldest due first", testOldestDueFirst},
			test{"G3 order over a second", testOrderOverASecond},
			test{"G17 express lane", testLane},
			test{"G17 lane is bounded", testLaneIsBounded},
			test{"G17 lane closes", testLaneCloses},
			test{"G17 lane comes back", testLaneComesBack},
			test{"G19 bound of the fleet", testFleetMax},
			test{"G19 lease ends and frees its place", testFleetLeaseEnds},
			test{"G26 bound of the fleet", testReadyFleet},
			test{"G20 levels of a mark", testMarkLevels},
			test{"G20 marks of one batch", testMarksInBatch},
			test{"G20 mark ends", testMarkEnds},
			test{"G20 marks survive reopen", testMarksSurvive},
			test{"G20 refused batch changes no mark", testMarksRefused},
			test{"G20 repeat changes no mark", testMarksRepeated},
			test{"G20 all deliveries left out", testAllLeftOut},
			test{"G20 racing accepts of a mark", testRacingMarks},
			test{"G11 reap is bounded and resumable", testReapBounded}, // it claims all but the last
			test{"G9 repeated by sixteen at once", testRepeatedAtOnce})
	}
	if e.Bubble {
		tests = append(tests,
			test{"G9 idempotency window", testWindow},
			test{"G9 id is known while its event is kept", testKeptID})
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
