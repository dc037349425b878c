package explain

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A body cannot steer the terminal, and means the same.
func TestExplainedBodyIsPrintable(t *testing.T) {
	body := "{\"a\":\"\u009b31m\u202e \U000e0001 ü <&>\"}"
	got := printable(body)
	if want := `{"a":"\u009b31m\u202e \udb40\udc01 ü <&>"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var was, is any
	if err := errors.Join(json.Unmarshal([]byte(body), &was), json.Unmarshal([]byte(got), &is)); err != nil || !cmp.Equal(was, is) {
		t.Errorf("%v became %v, %v", was, is, err)
	}
}
