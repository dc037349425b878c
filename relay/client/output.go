package client

import (
	"encoding/json"
	"io"
	"strings"
	"text/tabwriter"
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

// Add adds a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

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
