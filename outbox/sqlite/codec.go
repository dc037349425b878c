package sqlite

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// maxNames is how many texts have a number; later ones are written out each time. Every one is in memory.
const maxNames = 10_000

// names are texts that come again and again, like the names of Relays and addresses of receivers.
type names struct {
	texts []string // by number - 1
	known map[string]uint64
}

// load reads all names.
func (n *names) load(d *db) error {
	*n = names{known: map[string]uint64{}}
	q, err := d.query(`SELECT text FROM name ORDER BY id`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		n.add(q.stmt.ColumnText(0))
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select names: %w", err)
	}
	return nil
}

func (n *names) add(text string) uint64 {
	n.texts = append(n.texts, text)
	n.known[text] = uint64(len(n.texts))
	return n.known[text]
}

// cut forgets those that a transaction that failed has added.
func (n *names) cut(length int) {
	for _, text := range n.texts[length:] {
		delete(n.known, text)
	}
	n.texts = n.texts[:length]
}

// appendName appends a text by its number, which it may get in the transaction under way.
func (s *Store) appendName(b []byte, text string) ([]byte, error) {
	id, known := s.names.known[text]
	if !known && text != "" && len(s.names.texts) < maxNames {
		id = s.names.add(text)
		if err := s.db.addName.int(int64(id)).text(text).exec(); err != nil {
			return nil, fmt.Errorf("insert name: %w", err)
		}
	}
	b = binary.AppendUvarint(b, id)
	if id == 0 {
		b = appendText(b, text)
	}
	return b, nil
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// appendEventMore encodes what few events have: how it was accepted, by which Relay, indexed fields.
func (s *Store) appendEventMore(b []byte, e *outbox.Event) (_ []byte, err error) {
	if e.Via == "" && e.Relay == "" && len(e.Fields) == 0 {
		return b, nil
	}
	for _, text := range []string{e.Via, e.Relay} {
		if b, err = s.appendName(b, text); err != nil {
			return nil, err
		}
	}
	for _, f := range e.Fields {
		if b, err = s.appendName(b, f.Path); err != nil {
			return nil, err
		}
		b = appendText(b, f.Value)
	}
	return b, nil
}

// readEventMore reads what appendEventMore wrote.
func (s *Store) readEventMore(b []byte, e *outbox.Event) error {
	if len(b) == 0 {
		return nil
	}
	r := reader{b: b}
	e.Via, e.Relay = s.readName(&r), s.readName(&r)
	for len(r.b) > 0 && !r.broken {
		e.Fields = append(e.Fields, outbox.Field{Path: s.readName(&r), Value: r.text()})
	}
	return r.err()
}

// appendAttemptMore encodes what few attempts have.
func (s *Store) appendAttemptMore(b []byte, a *outbox.Attempt) (_ []byte, err error) {
	if !a.Reused && a.Peer == "" && a.Relay == "" && a.Generation == 0 && a.Next.IsZero() {
		return b, nil
	}
	flags := byte(0)
	if a.Reused {
		flags |= 1
	}
	if !a.Next.IsZero() {
		flags |= 2
	}
	b = append(b, flags)
	for _, text := range []string{a.Peer, a.Relay} {
		if b, err = s.appendName(b, text); err != nil {
			return nil, err
		}
	}
	b = binary.AppendVarint(b, a.Generation)
	if !a.Next.IsZero() {
		b = binary.AppendVarint(b, a.Next.UnixMicro()-a.Started.UnixMicro())
	}
	return b, nil
}

// readAttemptMore reads what appendAttemptMore wrote; a.Started is known.
func (s *Store) readAttemptMore(b []byte, a *outbox.Attempt) error {
	if len(b) == 0 {
		return nil
	}
	flags, r := b[0], reader{b: b[1:]}
	a.Reused = flags&1 > 0
	a.Peer, a.Relay, a.Generation = s.readName(&r), s.readName(&r), r.varint()
	if flags&2 > 0 {
		a.Next = fromMicros(a.Started.UnixMicro() + r.varint())
	}
	return r.err()
}

// readName reads what appendName wrote.
func (s *Store) readName(r *reader) string {
	id := r.uvarint()
	switch {
	case id == 0:
		return r.text()
	case id <= uint64(len(s.names.texts)):
		return s.names.texts[id-1]
	}
	r.broken = true
	return ""
}

// reader reads numbers and texts from a blob. After one that is not there it returns zero values.
type reader struct {
	b      []byte
	broken bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.broken = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.broken = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes(r.uvarint())) }

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.broken = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) err() error {
	if r.broken {
		return fmt.Errorf("decode row: %w", sqlite3.CORRUPT)
	}
	return nil
}

// shortOutcome is how an outcome is stored: the known ones by a letter.
func shortOutcome(outcome string) string {
	switch outcome {
	case "":
		return ""
	case "delivered":
		return "d"
	case "retry":
		return "r"
	case "refused":
		return "n"
	case "gone":
		return "g"
	}
	return "=" + outcome
}

// longOutcome is the reverse of shortOutcome.
func longOutcome(stored string) string {
	switch stored {
	case "":
		return ""
	case "d":
		return "delivered"
	case "r":
		return "retry"
	case "n":
		return "refused"
	case "g":
		return "gone"
	}
	return stored[1:]
}

// lateAfter is how long after its accept a delivery is late.
const lateAfter = time.Minute
