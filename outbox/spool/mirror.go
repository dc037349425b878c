package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"relay/outbox"
)

// What decides who gets an event must be known before it is accepted, also by a Relay that starts
// while the shared outbox is away. So the spool keeps a copy of such documents, as this Relay saw
// them last.

// revisions is the kind of the documents that say up to where the copies of a kind go.
const revisions = "spool_revision"

// copiers bounds the documents that are copied at the same time: their commits ride together.
const copiers = 64

// Documents implements outbox.Documents. While the shared outbox is away, all documents of a kind
// of Options.Mirror are those that were seen last, if they ever were.
func (s *Store) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	if !slices.Contains(s.o.Mirror, kind) {
		return s.Store.Documents(ctx, kind, after)
	}
	s.mirroring.Lock()
	defer s.mirroring.Unlock()
	given := s.given[kind] // a copy, of which documents may be gone for longer than the shared outbox tells
	from := after
	if given != nil {
		from = 0
	}
	all, revision, err := s.Store.Documents(ctx, kind, from)
	switch {
	case away(err) && after == 0:
		copies, upTo, localErr := s.copies(ctx, kind)
		if localErr != nil {
			return nil, 0, err // there is none
		}
		s.given[kind] = copies
		s.log.Warn().Msg("what was made at run time is as it was when this Relay last saw the shared outbox")
		return copies, upTo, nil
	case err != nil:
		return nil, 0, err
	}
	if s.asked != nil {
		s.asked()
	}
	if err := s.follow(ctx, kind, from, all, revision); err != nil {
		s.log.Warn().Err(err).Msg("the spool has no copy of what was made at run time: if Relay starts while Redis is away it accepts nothing")
	}
	delete(s.given, kind)
	for _, old := range given {
		if !slices.ContainsFunc(all, func(d outbox.Document) bool { return d.Name == old.Name }) {
			all = append(all, outbox.Document{Kind: kind, Name: old.Name, Revision: revision})
		}
	}
	return all, revision, nil
}

// copies returns the copies of a kind, with the revision of the original's last write. A copy's
// body begins with the revision of the original.
func (s *Store) copies(ctx context.Context, kind string) ([]outbox.Document, uint64, error) {
	upTo, err := s.local.Document(ctx, revisions, kind)
	if err != nil {
		return nil, 0, err
	}
	kept, _, err := s.local.Documents(ctx, kind, 0)
	if err != nil {
		return nil, 0, err
	}
	for i := range kept {
		if len(kept[i].Body) < 8 {
			return nil, 0, fmt.Errorf("%w: the copy of %s %s cannot be read", outbox.ErrCorrupt, kind, kept[i].Name)
		}
		kept[i].Revision, kept[i].Body = binary.BigEndian.Uint64(kept[i].Body), kept[i].Body[8:]
	}
	return kept, binary.BigEndian.Uint64(upTo.Body), nil
}

// follow is mirror after an answer of the shared outbox. It does not end with the caller's context: who asks next asks for
// later changes alone. What could not be copied is read again with the next answer.
func (s *Store) follow(ctx context.Context, kind string, after uint64, all []outbox.Document, revision uint64) (err error) {
	ctx = context.WithoutCancel(ctx)
	if s.behind[kind] && after > 0 {
		if all, revision, err = s.Store.Documents(ctx, kind, 0); err != nil {
			return err
		}
		after = 0
	}
	err = s.mirror(ctx, kind, after, all, revision)
	s.behind[kind] = err != nil
	return err
}

// mirror brings the copies of a kind up to date: all were written after a revision, 0 for all
// that there are.
func (s *Store) mirror(ctx context.Context, kind string, after uint64, all []outbox.Document, revision uint64) error {
	kept, _, err := s.local.Documents(ctx, kind, 0)
	if err != nil {
		return err
	}
	before := map[string]outbox.Document{}
	for _, d := range kept {
		before[d.Name] = d
	}
	var writes []outbox.Document
	for _, d := range all {
		old := before[d.Name]
		delete(before, d.Name)
		d.Revision, d.Body = old.Revision, encodeCopy(d)
		if !bytes.Equal(d.Body, old.Body) {
			writes = append(writes, d)
		}
	}
	if after == 0 {
		for _, gone := range before {
			gone.Body = nil
			writes = append(writes, gone)
		}
	}
	if err := s.write(ctx, writes); err != nil {
		return err
	}
	mark, err := s.local.Document(ctx, revisions, kind)
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		return err
	}
	body := binary.BigEndian.AppendUint64(nil, revision)
	if bytes.Equal(mark.Body, body) {
		return nil
	}
	_, err = s.local.PutDocument(ctx, outbox.Document{Kind: revisions, Name: kind, Revision: mark.Revision, Body: body})
	return err
}

// encodeCopy is the body of a copy, empty for a document that was removed.
func encodeCopy(d outbox.Document) []byte {
	if len(d.Body) == 0 {
		return nil
	}
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(d.Body)), d.Revision), d.Body...)
}

// write writes copies, many at the same time.
func (s *Store) write(ctx context.Context, writes []outbox.Document) error {
	var wg sync.WaitGroup
	errs := make([]error, len(writes))
	turn := make(chan struct{}, copiers)
	for i, d := range writes {
		turn <- struct{}{}
		wg.Go(func() {
			_, errs[i] = s.local.PutDocument(ctx, d)
			<-turn
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
