package sqlite

import (
	"fmt"

	"relay/outbox"
)

// erase removes the data of an event.
func (e *edits) erase(c outbox.Change) (edited outbox.Edited, err error) {
	s := e.s
	r, number, parts, err := s.readParts(s.db.findEvent.text(c.Event))
	switch {
	case err != nil:
		return edited, err
	case r == nil:
		edited.Err = outbox.ErrNotFound
		return edited, nil
	case !r.Erased.IsZero():
		edited.Repeated = true
		return edited, nil
	}
	var pending []*stored
	for _, p := range parts {
		d, err := s.find(p.seq)
		if err != nil {
			return edited, err
		}
		if d != nil && d.state == outbox.Pending {
			pending = append(pending, d)
		}
	}
	if len(pending) > 0 && !c.Force {
		edited.Err = &outbox.StateError{State: outbox.Pending}
		return edited, nil
	}
	if edited.Err = s.takeOut(pending, true); edited.Err != nil {
		return edited, nil
	}
	for _, d := range pending {
		if err := e.finish(d, c.Code); err != nil {
			return edited, err
		}
	}
	return edited, e.wipe(r, number, parts)
}

// wipe overwrites the data of an event, and what was said in its attempts.
func (e *edits) wipe(r *outbox.Record, number int64, parts []part) error {
	s := e.s
	// SQLite overwrites with zeros what it frees. The log holds the old pages until it is cut short; see tend.
	if err := s.db.conn.Exec(`PRAGMA secure_delete = ON`); err != nil {
		return fmt.Errorf("set secure_delete: %w", err)
	}
	defer s.db.conn.Exec(`PRAGMA secure_delete = OFF`) // an error would show at the next write
	s.scrub = true
	fields := r.Event.Fields
	r.Event.Fields = nil
	more, err := s.appendEventMore(nil, &r.Event)
	if err != nil {
		return err
	}
	if err := s.db.eraseEvent.int(s.now).blob(more).int(number).exec(); err != nil {
		return fmt.Errorf("erase event: %w", err)
	}
	for _, p := range parts {
		if err := s.db.eraseDone.int(p.seq).exec(); err != nil {
			return fmt.Errorf("erase attempt: %w", err)
		}
		if err := s.db.eraseAttempts.int(attemptID(p.seq, 0)).int(attemptID(p.seq, maxAttempts)).exec(); err != nil {
			return fmt.Errorf("erase attempts: %w", err)
		}
		g := lostFields{p.seq, fields}
		if err := s.unlist(g); err != nil {
			return err
		}
		e.gone = append(e.gone, g)
	}
	return nil
}
