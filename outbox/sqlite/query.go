package sqlite

import (
	"cmp"
	"errors"

	"github.com/ncruces/go-sqlite3"
)

// query is a prepared statement. Parameters are bound in their order by the
// chained methods; exec, or step and done, run it.
type query struct {
	stmt *sqlite3.Stmt
	n    int // parameters bound
	err  error
	last []parameter // by place
}

// parameter is the value that a statement has of the run before: one that is the same need not be
// bound again, which costs a call into SQLite, and with a text memory of it.
type parameter struct {
	kind  sqlite3.Datatype // 0 for one that is not known
	int   int64
	bytes []byte
}

// maxKept is how long a text or blob may be, in bytes, to be compared with the one of the run before.
const maxKept = 256

// next is the place of the next parameter.
func (q *query) next() *parameter {
	if q.n == len(q.last) {
		q.last = append(q.last, parameter{})
	}
	q.n++
	return &q.last[q.n-1]
}

func (q *query) int(v int64) *query {
	if p := q.next(); p.kind != sqlite3.INTEGER || p.int != v {
		p.kind, p.int = sqlite3.INTEGER, v
		q.bound(q.stmt.BindInt64(q.n, v))
	}
	return q
}

// null binds NULL.
func (q *query) null() *query {
	if p := q.next(); p.kind != sqlite3.NULL {
		p.kind = sqlite3.NULL
		q.bound(q.stmt.BindNull(q.n))
	}
	return q
}

// text binds a string; the empty one is NULL, which reads as "" again.
func (q *query) text(v string) *query {
	if v == "" {
		return q.null()
	}
	return q.string(v)
}

// string binds a string, the empty one too.
func (q *query) string(v string) *query {
	if p := q.next(); !keep(p, sqlite3.TEXT, v) {
		q.bound(q.stmt.BindText(q.n, v))
	}
	return q
}

// rawText binds a string that is in bytes, like text.
func (q *query) rawText(v []byte) *query {
	if len(v) == 0 {
		return q.null()
	}
	if p := q.next(); !keep(p, sqlite3.TEXT, v) {
		q.bound(q.stmt.BindRawText(q.n, v))
	}
	return q
}

// blob binds bytes; none are NULL.
func (q *query) blob(v []byte) *query {
	if len(v) == 0 {
		return q.null()
	}
	if p := q.next(); !keep(p, sqlite3.BLOB, v) {
		q.bound(q.stmt.BindBlob(q.n, v))
	}
	return q
}

// keep tells whether a parameter is v already. If not it remembers that it will be.
func keep[T string | []byte](p *parameter, kind sqlite3.Datatype, v T) bool {
	if p.kind == kind && string(p.bytes) == string(v) {
		return true
	}
	if p.kind = kind; len(v) > maxKept {
		p.kind = 0
		return false
	}
	p.bytes = append(p.bytes[:0], v...)
	return false
}

func (q *query) bound(err error) {
	if err != nil {
		q.last[q.n-1].kind = 0
		q.err = cmp.Or(q.err, err)
	}
}

// exec runs a statement that returns no rows.
func (q *query) exec() error {
	if q.err != nil {
		return q.done()
	}
	q.n = 0
	return q.stmt.Exec()
}

// step goes to the next row.
func (q *query) step() bool { return q.err == nil && q.stmt.Step() }

// done ends the reading of rows and returns what went wrong.
func (q *query) done() error {
	err := q.err
	q.n, q.err = 0, nil
	return errors.Join(err, q.stmt.Reset())
}

// number runs a statement that returns one number.
func (q *query) number() (int64, error) {
	var v int64
	if q.step() {
		v = q.stmt.ColumnInt64(0)
	}
	return v, q.done()
}

// pairs runs a statement whose rows are two numbers.
func (q *query) pairs() ([][2]int64, error) {
	var rows [][2]int64
	for q.step() {
		rows = append(rows, [2]int64{q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)})
	}
	return rows, q.done()
}
