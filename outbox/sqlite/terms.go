package sqlite

import (
	"fmt"

	"relay/outbox"
)

// passing returns those of an event's targets, with their terms, whose marks let the delivery
// be made. The marks are remembered in the transaction under way.
func (s *Store) passing(targets []*endpoint, terms []outbox.Term, now int64) ([]*endpoint, []outbox.Term, error) {
	var made []*endpoint
	var kept []outbox.Term
	for i, t := range terms {
		if t.Mark != nil {
			if passes, err := s.passes(t.Mark, now); err != nil {
				return nil, nil, err
			} else if !passes {
				continue
			}
		}
		made, kept = append(made, targets[i]), append(kept, t)
	}
	return made, kept, nil
}

// passes tells whether a mark lets its delivery be made, and remembers its level.
func (s *Store) passes(m *outbox.Mark, now int64) (bool, error) {
	last, err := s.db.findMark.text(m.Key).int(now).number() // 0 for none
	if err != nil {
		return false, fmt.Errorf("select mark: %w", err)
	}
	above := m.Level > last
	if above || m.Lower && m.Level < last {
		if err := s.db.setMark.text(m.Key).int(m.Level).int(now + m.For.Microseconds()).exec(); err != nil {
			return false, fmt.Errorf("write mark: %w", err)
		}
	}
	return above, nil
}

// insertFailed writes a delivery that is failed from the start; e goes to no queue.
func (s *Store) insertFailed(e *entry, t outbox.Term) error {
	s.count(e.endpoint).end(outbox.Failed)
	s.tally(e, settled{state: outbox.Failed})
	return s.addDone(e, end{state: outbox.Failed, finished: e.created, code: t.Code, error: t.Error})
}
