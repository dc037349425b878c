package outboxtest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
)

// modelMark is a level that should be remembered: not less long than until least, not longer
// than until most.
type modelMark struct {
	level       int64
	least, most time.Time
}

// newTerms draws terms for n deliveries, some of them with marks that the histories' events
// share.
func (m *model) newTerms(t *rapid.T, n int) []outbox.Term {
	terms := make([]outbox.Term, n)
	for i := range terms {
		if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
			terms[i].Code = "when_error"
			terms[i].Error = rapid.SampledFrom([]string{"", "no amount"}).Draw(t, "error")
		}
		if m.engine.Sharded || rapid.IntRange(0, 2).Draw(t, "no mark") == 0 {
			continue
		}
		terms[i].Mark = &outbox.Mark{
			Key:   fmt.Sprintf("%d/%d", m.run, rapid.IntRange(1, 2).Draw(t, "mark")),
			Level: rapid.Int64Range(0, 4).Draw(t, "level"),
			Lower: rapid.Bool().Draw(t, "lower"),
			For:   rapid.SampledFrom([]time.Duration{m.unit, 2 * m.unit, long}).Draw(t, "for"),
		}
	}
	return terms
}

// judge checks that a delivery was rightly made or left out by an accept between before and
// after, and takes its mark into the model.
func (m *model) judge(eventID string, mark *outbox.Mark, made bool, before, after time.Time) {
	if mark == nil {
		if !made {
			m.Fatalf("event %s lacks a delivery that has no mark", eventID)
		}
		return
	}
	last := m.marks[mark.Key]
	if last == nil || !last.most.After(before) {
		last = &modelMark{}
	}
	above := mark.Level > last.level
	// While its end is near nobody knows whether the last level was still there.
	near := !last.least.After(after) && mark.Level > 0
	if made != above && !(near && made) {
		m.Fatalf("event %s: delivery made = %t by %+v, with level %d remembered until %v", eventID, made, *mark, last.level, last.least)
	}
	if made || mark.Lower && mark.Level < last.level {
		m.marks[mark.Key] = &modelMark{mark.Level, before.Add(mark.For - m.way - time.Millisecond), after.Add(mark.For + m.way + time.Millisecond)}
	}
}
