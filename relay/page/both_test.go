package page

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"testing"
)

// twice executes every screen with html/template as well, and compares.
type twice struct {
	t      *testing.T
	ours   executor
	theirs *template.Template
}

// compared makes a page check all that it shows against html/template.
func compared(t *testing.T, p *Page) *Page {
	p.screens.parse = func(files map[string]string, funcs map[string]any) (executor, error) {
		ours, err := parseMarkup(files, funcs)
		if err != nil {
			return nil, err
		}
		theirs := template.New("").Funcs(funcs)
		for _, text := range files {
			if theirs, err = theirs.Parse(text); err != nil {
				return nil, err
			}
		}
		return &twice{t, ours, theirs}, nil
	}
	return p
}

// marks of forms are different each time.
var marks = regexp.MustCompile(`name="once" value="[^"]+"`)

func (x *twice) Execute(w io.Writer, name string, data any) error {
	var a, b bytes.Buffer
	errA, errB := x.ours.Execute(&a, name, data), x.theirs.ExecuteTemplate(&b, name, data)
	if (errA == nil) != (errB == nil) {
		x.t.Errorf("%s: ours: %v, html/template: %v", name, errA, errB)
	}
	ours, theirs := marks.ReplaceAll(a.Bytes(), nil), marks.ReplaceAll(b.Bytes(), nil)
	if errA == nil && !bytes.Equal(ours, theirs) {
		at := 0
		for at < min(len(ours), len(theirs)) && ours[at] == theirs[at] {
			at++
		}
		from := max(0, at-80)
		x.t.Errorf("%s differs from html/template:\nours:   %s\ntheirs: %s", name, ours[from:min(len(ours), at+80)], theirs[from:min(len(theirs), at+80)])
	}
	if errA != nil {
		return fmt.Errorf("%s: %w", name, errA)
	}
	_, err := w.Write(a.Bytes())
	return err
}

var _ executor = (*twice)(nil)
