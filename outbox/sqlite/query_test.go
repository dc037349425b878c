package sqlite

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Parameters are what they were bound to last, whatever they were in the runs before.
func TestParametersOfRuns(t *testing.T) {
	d, err := connect(filepath.Join(t.TempDir(), "relay.db"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	q, err := d.query(`SELECT quote(?)`)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"", "a", "aa", "1", strings.Repeat("a", maxKept), strings.Repeat("a", maxKept+1), strings.Repeat("b", maxKept+1)}
	orNull := func(text, quoted string) string {
		if text == "" {
			return "NULL"
		}
		return quoted
	}
	binds := []func(text string) (want string){
		func(string) string { q.int(1); return "1" },
		func(string) string { q.int(2); return "2" },
		func(string) string { q.null(); return "NULL" },
		func(text string) string { q.string(text); return "'" + text + "'" },
		func(text string) string { q.text(text); return orNull(text, "'"+text+"'") },
		func(text string) string { q.rawText([]byte(text)); return orNull(text, "'"+text+"'") },
		func(text string) string { q.blob([]byte(text)); return orNull(text, fmt.Sprintf("X'%X'", text)) },
		func(string) string { q.int(1).int(2); return "" }, // there is no second parameter
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			bind := rapid.IntRange(0, len(binds)-1).Draw(t, "bind")
			got, want := "", binds[bind](rapid.SampledFrom(texts).Draw(t, "text"))
			if q.step() {
				got = q.stmt.ColumnText(0)
			}
			if err := q.done(); got != want || (err != nil) != (want == "") {
				t.Fatalf("%q, want %q: %v", got, want, err)
			}
		}
	})
}
