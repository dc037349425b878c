package client

import (
	"cmp"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// JSON writes a value for programs, indented for people.
func JSON(to io.Writer, v any) error {
	enc := json.NewEncoder(to)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Output is where a verb prints a table.
type Output struct {
	Out, Err io.Writer
	Terminal bool // Out is a terminal, not a pipe to a program
}

// Table writes a table: in columns for people, with a tab between cells for programs.
func (o Output) Table(t *Table) error {
	if o.Terminal {
		return t.Align(o.Out)
	}
	return t.Tabs(o.Out)
}

// Remark writes a paragraph about a table, "" for none: below it for people, to Err for programs.
func (o Output) Remark(text string) error {
	if text == "" {
		return nil
	}
	if o.Terminal {
		_, err := io.WriteString(o.Out, "\n"+text)
		return err
	}
	_, err := io.WriteString(o.Err, text)
	return err
}

// Table is rows below a header. No cell has a tab or a line end.
type Table struct {
	Header []string
	Rows   [][]string
}

// Add adds a row. Empty cells become "-", and characters that could control a terminal escapes.
func (t *Table) Add(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = cmp.Or(Printable(cell), "-")
	}
	t.Rows = append(t.Rows, row)
}

// Printable replaces characters that could control a terminal, or break a line, by escapes.
// Receivers and senders choose the texts that verbs print.
func Printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// Align writes the table in columns, for people.
func (t *Table) Align(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if err := t.Tabs(w); err != nil {
		return err
	}
	return w.Flush()
}

// Tabs writes the table with a tab between cells, for programs.
func (t *Table) Tabs(to io.Writer) error {
	var b strings.Builder
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	_, err := io.WriteString(to, b.String())
	return err
}
