package redisstream

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// revisions are what this process knows of the last writes of documents, by kind. They are heard
// of as that of the notes is.
type revisions map[string]*noted

// of returns what is known of a kind. The caller holds mu.
func (r revisions) of(kind string) *noted {
	if r[kind] == nil {
		r[kind] = &noted{heard: make(chan struct{})}
	}
	return r[kind]
}

// hearKinds takes in the revisions of all kinds that a look at Redis told.
func (s *Store) hearKinds(flat []string, began time.Time) {
	told := map[string]string{}
	for i := 0; i+1 < len(flat); i += 2 {
		told[flat[i]] = flat[i+1]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind := range s.kinds {
		if _, ok := told[kind]; !ok {
			told[kind] = "0"
		}
	}
	for kind, revision := range told {
		s.kinds.of(kind).hear(revision, began)
	}
}

// hearKind takes in the revision of one kind.
func (s *Store) hearKind(kind, revision string, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds.of(kind).hear(revision, began)
}

func parseDocument(kind, name, kept string) outbox.Document {
	revision, body, _ := strings.Cut(kept, "|")
	d := outbox.Document{Kind: kind, Name: name}
	d.Revision, _ = strconv.ParseUint(revision, 10, 64)
	if body != "" {
		d.Body = []byte(body)
	}
	return d
}

// found is an answer to Documents.
type found struct {
	documents []outbox.Document
	revision  string
}

// Documents implements outbox.Documents.
func (s *Store) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	sh := s.shards[0]
	began := time.Now()
	v, err := s.ask(ctx, func(ctx context.Context, _ *session) (any, error) {
		node, err := sh.node(ctx)
		if err != nil {
			return nil, sh.note(err)
		}
		// The revision first: what is written meanwhile is read twice rather than missed.
		f := found{}
		if f.revision, err = node.HGet(ctx, sh.kinds, kind).Result(); err != nil && !isNil(err) {
			return nil, sh.note(err)
		}
		if after == 0 {
			f.documents, err = sh.allDocuments(ctx, node, kind)
		} else {
			f.documents, err = sh.documentsAfter(ctx, node, kind, after)
		}
		return f, err
	})
	if err != nil {
		return nil, 0, err
	}
	f := v.(found)
	s.hearKind(kind, f.revision, began)
	revision, _ := strconv.ParseUint(f.revision, 10, 64)
	return f.documents, revision, nil
}

func (sh *shard) allDocuments(ctx context.Context, node *redis.Client, kind string) (all []outbox.Document, err error) {
	kept, err := node.HGetAll(ctx, sh.documents(kind)).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	for name, text := range kept {
		if d := parseDocument(kind, name, text); len(d.Body) > 0 {
			all = append(all, d)
		}
	}
	return all, nil
}

// documentGroup is how many documents are read by one command.
const documentGroup = 200

func (sh *shard) documentsAfter(ctx context.Context, node *redis.Client, kind string, after uint64) (all []outbox.Document, err error) {
	names, err := node.ZRangeArgs(ctx, redis.ZRangeArgs{Key: sh.revisions(kind), ByScore: true, Start: "(" + strconv.FormatUint(after, 10), Stop: "+inf"}).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	for some := range slices.Chunk(names, documentGroup) {
		values, err := node.HMGet(ctx, sh.documents(kind), some...).Result()
		if err != nil {
			return nil, sh.note(err)
		}
		for i, v := range values {
			if text, ok := v.(string); ok {
				all = append(all, parseDocument(kind, some[i], text))
			}
		}
	}
	return all, nil
}

// Document implements outbox.Documents.
func (s *Store) Document(ctx context.Context, kind, name string) (outbox.Document, error) {
	sh := s.shards[0]
	v, err := s.ask(ctx, func(ctx context.Context, _ *session) (any, error) {
		node, err := sh.node(ctx)
		if err != nil {
			return nil, sh.note(err)
		}
		text, err := node.HGet(ctx, sh.documents(kind), name).Result()
		if isNil(err) {
			return "", nil
		}
		return text, sh.note(err)
	})
	if err != nil {
		return outbox.Document{}, err
	}
	d := parseDocument(kind, name, v.(string))
	if len(d.Body) == 0 {
		return outbox.Document{}, outbox.ErrNotFound
	}
	return d, nil
}

// AwaitDocuments implements outbox.Documents, as AwaitNotes.
func (s *Store) AwaitDocuments(ctx context.Context, kind string, after uint64) error {
	return s.awaitRevision(ctx, after, func() *noted { return s.kinds.of(kind) })
}

// PutDocument implements outbox.Documents.
func (s *Store) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if err := d.Check(); err != nil {
		return outbox.Document{}, err
	}
	sh := s.shards[0]
	v, err := s.ask(ctx, func(ctx context.Context, joined *session) (any, error) {
		c := s.confirming(ctx, sh, joined)
		keys := []string{sh.meta, sh.documents(d.Kind), sh.revisions(d.Kind), sh.removed(d.Kind), sh.kinds, sh.bell}
		v, err := sh.eval(ctx, &s.scripts.setdoc, keys, []any{joined.outbox, d.Kind, d.Name, d.Revision, d.Body}, c.after...)
		if err != nil {
			return nil, err
		}
		return v, c.wait(ctx)
	})
	if err != nil {
		return outbox.Document{}, err
	}
	answer, err := texts(v, 2)
	if err != nil {
		return outbox.Document{}, err
	}
	if answer[0] != "1" {
		return parseDocument(d.Kind, d.Name, answer[1]+"|"+answer[2]), outbox.ErrConflict
	}
	if answer[1] != "0" {
		s.hearKind(d.Kind, answer[1], time.Time{})
	}
	return parseDocument(d.Kind, d.Name, answer[1]+"|"+string(d.Body)), nil
}
