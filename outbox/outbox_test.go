package outbox_test

import (
	"errors"
	"fmt"
	"testing"

	"relay/internal/testkit"
	"relay/outbox"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestStateFinal(t *testing.T) {
	for state, want := range map[outbox.State]bool{
		outbox.Pending:   false,
		outbox.Delivered: true,
		outbox.Failed:    true,
		outbox.Discarded: true,
		"":               false,
	} {
		if got := state.Final(); got != want {
			t.Errorf("State(%q).Final() = %t, want %t", state, got, want)
		}
	}
}

func TestConflictError(t *testing.T) {
	for _, test := range []struct {
		err  outbox.ConflictError
		want string
	}{
		{outbox.ConflictError{Index: -1}, "idempotency key was used before with other content"},
		{outbox.ConflictError{Index: 0, ID: "order-7"}, `event "order-7": key was used before with other content`},
		{outbox.ConflictError{Index: 3, ID: "a\nb"}, `event "a\nb": key was used before with other content`},
	} {
		err := fmt.Errorf("accept batch: %w", &test.err)
		if !errors.Is(err, outbox.ErrConflict) || errors.Is(err, outbox.ErrFull) {
			t.Errorf("%v is not told apart as ErrConflict", err)
		}
		if got := test.err.Error(); got != test.want {
			t.Errorf("Error() = %q, want %q", got, test.want)
		}
	}
}
