package outboxtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

// must ends the test on an error.
func TestLedgerCheck(t *testing.T) {
	m := outboxtest.NewMem(outboxtest.MemOptions{})
	t.Cleanup(func() { testkit.Must(t, m.Close()) })
	l := outboxtest.NewLedger()
	accept := func(id string, endpoints ...string) {
		_, err := m.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: id}, Endpoints: endpoints}}})
		testkit.Must(t, err)
	}
	settle := func(endpoint string, state outbox.State) {
		claims, err := m.Claim(t.Context(), outbox.ClaimRequest{Endpoint: endpoint, Max: 1, Lease: time.Hour})
		testkit.Must(t, err)
		testkit.Must(t, m.Settle(t.Context(), claims[0], outbox.Settlement{State: state}))
	}

	accept("evt_1", "got", "pending", "failed", "discarded", "false")
	testkit.Must(t, l.Accepted("evt_1", "got", "pending", "failed", "discarded", "false", "absent"))
	testkit.Must(t, l.Accepted("evt_1", "got", "pending", "failed", "discarded", "false", "absent")) // a repeat
	settle("failed", outbox.Failed)
	settle("discarded", outbox.Discarded)
	settle("false", outbox.Delivered) // the receiver knows nothing of it
	testkit.Must(t, l.Received("evt_1", "got"))
	testkit.Must(t, l.Received("evt_1", "got"))
	testkit.Must(t, l.Received("evt_1", "got"))
	testkit.Must(t, l.Accepted("evt_gone", "got", "lost"))
	testkit.Must(t, l.Received("evt_gone", "got")) // delivered and reaped
	testkit.Must(t, l.Received("evt_unanswered", "got"))

	got, err := l.Check(t.Context(), m.Lookup)
	testkit.Must(t, err)
	want := outboxtest.Tally{
		Acknowledged: 8, Delivered: 2, Pending: 1, Failed: 1, Discarded: 1, Lost: 3,
		Duplicates: 2, Unpromised: 1,
		Losses: []string{`evt_1 at absent: state ""`, `evt_1 at false: state "delivered"`, `evt_gone at lost: state ""`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}
	if want := "acknowledged 8, delivered 2, pending 1, failed 1, discarded 1, lost 3, duplicates 2, unpromised 1"; got.String() != want {
		t.Errorf("String() = %q, want %q", got, want)
	}

	broken := errors.New("cannot be asked")
	if _, err := l.Check(t.Context(), func(context.Context, string) (*outbox.Record, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("Check of an outbox that cannot be asked: %v, want its error", err)
	}
}

func TestLedgerFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	producer, err := outboxtest.OpenLedger(path)
	testkit.Must(t, err)
	receiver, err := outboxtest.OpenLedger(path) // as from another process
	testkit.Must(t, err)
	testkit.Must(t, producer.Accepted("evt_1", "a", "b"))
	testkit.Must(t, receiver.Received("evt_1", "a"))
	testkit.Must(t, producer.Accepted("evt_2"))
	testkit.Must(t, receiver.Received("evt_1", "b"))
	for _, l := range []*outboxtest.Ledger{producer, receiver} {
		testkit.Must(t, l.Close())
	}
	data, err := os.ReadFile(path)
	testkit.Must(t, err)
	if want := "accepted\tevt_1\ta\tb\nreceived\tevt_1\ta\naccepted\tevt_2\nreceived\tevt_1\tb\n"; string(data) != want {
		t.Errorf("file = %q, want %q", data, want)
	}

	checker, err := outboxtest.OpenLedger(path)
	testkit.Must(t, err)
	defer checker.Close()
	empty := outboxtest.NewMem(outboxtest.MemOptions{})
	got, err := checker.Check(t.Context(), empty.Lookup)
	testkit.Must(t, err)
	if diff := cmp.Diff(outboxtest.Tally{Acknowledged: 2, Delivered: 2}, got); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}
	testkit.Must(t, checker.Received("evt_1", "b"))
	got, err = checker.Check(t.Context(), empty.Lookup)
	testkit.Must(t, err)
	if got.Duplicates != 1 {
		t.Errorf("Duplicates = %d after one more record, want 1", got.Duplicates)
	}
}

func TestLedgerRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"torn line":    "accepted\tevt_1\ta\nreceived\tevt_1\ta",
		"unknown verb": "sent\tevt_1\ta\n",
		"no event":     "accepted\n",
		"no endpoint":  "received\tevt_1\n",
		"empty field":  "accepted\tevt_1\t\tb\n",
		"empty line":   "\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			testkit.Must(t, os.WriteFile(path, []byte(text), 0o600))
			if _, err := outboxtest.OpenLedger(path); err == nil || !strings.Contains(err.Error(), "is no record") {
				t.Errorf("OpenLedger of %q: %v, want an error that names the line", text, err)
			}
		})
	}
	l := outboxtest.NewLedger()
	for _, endpoint := range []string{"", "a\tb", "a\nb"} {
		if err := l.Accepted("evt_1", endpoint); err == nil {
			t.Errorf("Accepted for endpoint %q: no error", endpoint)
		}
	}
}
