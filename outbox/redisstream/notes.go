package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
)

// noted is what this process knows of the revision of the notes, or of the documents of a kind.
type noted struct {
	revision uint64
	began    time.Time     // when the look at Redis began that told it; zero when that is not known
	ended    time.Time     // when the last such look ended
	heard    chan struct{} // closed by the next look
}

// hearNotes takes in the revision of the notes that a look at Redis returned.
func (s *Store) hearNotes(text string, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes.hear(text, began)
}

// hear takes in the revision that a look at Redis returned. The revision is lower than before
// where Redis lost what was written: such an answer counts when it is certainly the later one. The caller
// holds mu.
func (n *noted) hear(text string, began time.Time) {
	revision, _ := strconv.ParseUint(text, 10, 64)
	if revision < n.revision && !began.After(n.ended) {
		return
	}
	close(n.heard)
	*n = noted{revision: revision, began: began, ended: time.Now(), heard: make(chan struct{})}
}

// Notes implements outbox.Notebook.
func (s *Store) Notes(ctx context.Context) ([]outbox.Note, uint64, error) {
	sh := s.shards[0]
	began := time.Now()
	v, err := s.ask(ctx, func(ctx context.Context, _ *session) (any, error) {
		return sh.eval(ctx, &s.scripts.notes, []string{sh.meta, sh.notes}, nil)
	})
	if err != nil {
		return nil, 0, err
	}
	list, err := texts(v, 1)
	if err != nil {
		return nil, 0, err
	}
	s.hearNotes(list[0], began)
	revision, _ := strconv.ParseUint(list[0], 10, 64)
	var notes []outbox.Note
	for i := 1; i+1 < len(list); i += 2 {
		written, text, _ := strings.Cut(list[i+1], "|")
		notes = append(notes, newNote(list[i], written, text))
	}
	return notes, revision, nil
}

func newNote(endpoint, revision, text string) outbox.Note {
	n := outbox.Note{Endpoint: endpoint, Text: []byte(text)}
	n.Revision, _ = strconv.ParseUint(revision, 10, 64)
	return n
}

// AwaitNotes implements outbox.Notebook.
func (s *Store) AwaitNotes(ctx context.Context, after uint64) error {
	return s.awaitRevision(ctx, after, func() *noted { return &s.notes })
}

// awaitRevision returns when something was written after a revision. It asks nothing: the heartbeat and the bell tell of
// writes. It returns, too, when Redis came back with an older revision or without any.
func (s *Store) awaitRevision(ctx context.Context, after uint64, of func() *noted) error {
	began := time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.refusal(); err != nil {
			return err
		}
		s.mu.Lock()
		n := *of()
		s.mu.Unlock()
		if n.revision > after || n.revision < after && n.began.After(began) {
			return nil
		}
		select {
		case <-n.heard:
		case <-ctx.Done():
		case <-s.stop:
		}
	}
}

// SetNote implements outbox.Notebook. Revisions are microseconds of the clock of Redis,
// raised where needed to be unique and rising.
func (s *Store) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	if len(n.Text) > outbox.MaxNote {
		return outbox.Note{}, fmt.Errorf("set note of endpoint %s: it has %d bytes, at most %d are possible", n.Endpoint, len(n.Text), outbox.MaxNote)
	}
	sh := s.shards[0]
	v, err := s.ask(ctx, func(ctx context.Context, joined *session) (any, error) {
		c := s.confirming(ctx, sh, joined)
		v, err := sh.eval(ctx, &s.scripts.setnote, []string{sh.meta, sh.notes, sh.bell},
			[]any{joined.outbox, n.Endpoint, n.Revision, n.Text}, c.after...)
		if err != nil {
			return nil, err
		}
		return v, c.wait(ctx)
	})
	if err != nil {
		return outbox.Note{}, err
	}
	answer, err := texts(v, 2)
	if err != nil {
		return outbox.Note{}, err
	}
	if answer[0] != "1" {
		return newNote(n.Endpoint, answer[1], answer[2]), outbox.ErrConflict
	}
	s.hearNotes(answer[1], time.Time{})
	return newNote(n.Endpoint, answer[1], string(n.Text)), nil
}

// ask makes a call of the first shard, which its caller may leave at any time.
func (s *Store) ask(ctx context.Context, call func(ctx context.Context, joined *session) (any, error)) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.refusal(); err != nil {
		return nil, err
	}
	joined, err := s.shards[0].session()
	if err != nil {
		return nil, err
	}
	if lasts, why := s.shards[0].outage(); lasts > failFast {
		return nil, why
	}
	type answer struct {
		v   any
		err error
	}
	got := make(chan answer, 1)
	go func() {
		within, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		v, err := call(within, joined)
		got <- answer{v, err}
	}()
	select {
	case a := <-got:
		return a.v, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	}
}
