package sqlite

import "context"

// writing is a small write on its way into the database: a note, a document, a line, some edits.
type writing struct {
	ctx context.Context

	// run writes in the transaction under way. It runs again when the transaction is tried again. What refuses the
	// change alone is its refusal; an error ends the transaction.
	run  func() (refusal, err error)
	then func() // once it is committed, below Store.mu; nil for nothing

	err  error // valid once done is closed
	done chan struct{}
}

// answer ends the change, unless it has ended.
func (c *writing) answer(err error) {
	select {
	case <-c.done:
	default:
		c.err = err
		close(c.done)
	}
}

// change makes a change in the next commit, which is as durable as that of an accept. After a context's
// error run may still write to its variables.
func (s *Store) change(ctx context.Context, c writing) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.ctx, c.done = ctx, make(chan struct{})
	s.mu.Lock()
	if s.refusal != nil {
		defer s.mu.Unlock()
		return s.refusal
	}
	s.writes = append(s.writes, &c)
	s.mu.Unlock()
	s.nudge()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
