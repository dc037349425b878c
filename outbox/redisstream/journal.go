package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"relay/outbox"
)

// Append implements outbox.Journal.
func (s *Store) Append(ctx context.Context, body []byte) (outbox.Line, error) {
	if len(body) > outbox.MaxLine {
		return outbox.Line{}, fmt.Errorf("line of the journal has %d bytes: at most %d are possible", len(body), outbox.MaxLine)
	}
	sh := s.shards[0]
	v, err := s.ask(ctx, func(ctx context.Context, joined *session) (any, error) {
		c := s.confirming(ctx, sh, joined)
		v, err := sh.eval(ctx, &s.scripts.line, []string{sh.meta, sh.journal}, []any{joined.outbox, body, outbox.MaxLines}, c.after...)
		if err != nil {
			return nil, err
		}
		return v, c.wait(ctx)
	})
	if err != nil {
		return outbox.Line{}, err
	}
	answer, err := texts(v, 2)
	if err != nil {
		return outbox.Line{}, err
	}
	return newLine(answer[0], answer[1], string(body)), nil
}

func newLine(n, at, body string) outbox.Line {
	l := outbox.Line{At: erasedAt(at), Body: []byte(body)}
	l.N, _ = strconv.ParseUint(n, 10, 64)
	return l
}

// Lines implements outbox.Journal.
func (s *Store) Lines(ctx context.Context, before uint64, limit int) ([]outbox.Line, error) {
	if limit < 1 || limit > outbox.MaxPage {
		return nil, fmt.Errorf("limit of a page is %d: it can be from 1 to %d", limit, outbox.MaxPage)
	}
	sh, from := s.shards[0], "+"
	if before > 0 {
		from = strconv.FormatUint(before-1, 10)
	}
	v, err := s.ask(ctx, func(ctx context.Context, _ *session) (any, error) {
		node, err := sh.node(ctx)
		if err != nil {
			return nil, sh.note(err)
		}
		found, err := node.XRevRangeN(ctx, sh.journal, from, "-", int64(limit)).Result()
		if err != nil {
			return nil, sh.note(err)
		}
		var lines []outbox.Line
		for _, m := range found {
			at, _ := m.Values["t"].(string)
			body, _ := m.Values["b"].(string)
			n, _, _ := strings.Cut(m.ID, "-")
			lines = append(lines, newLine(n, at, body))
		}
		return lines, nil
	})
	if err != nil {
		return nil, err
	}
	return v.([]outbox.Line), nil
}
