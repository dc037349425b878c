package sqlite

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
)

// childEnv names what this test binary does instead of testing, and where.
const childEnv = "RELAY_SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		if err := child(what, dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Main(m)
}

// child opens the outbox, then keeps it ("hold") or works on it ("work") until it is
// killed. It prints a line for each thing that has happened.
func child(what, dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, Options{Dir: dir, ballast: 1, raise: time.Millisecond, roll: time.Millisecond})
	if err != nil {
		return err
	}
	fmt.Println("open")
	if what == "hold" {
		select {}
	}
	for range 16 {
		go func() {
			for {
				claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute})
				if err != nil {
					return
				}
				fmt.Println("delivered", claims[0].EventID)
				_ = s.Settle(ctx, claims[0], outbox.Settlement{State: outbox.Delivered})
			}
		}()
	}
	go operate(ctx, s)
	failed := make(chan error)
	for producer := range 8 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("evt_%d_%d_%d", os.Getpid(), producer, n)
				if _, err := s.Accept(ctx, batch(event(id, "a", "b"))); err != nil {
					failed <- err
				}
				fmt.Println("accepted", id) // one write: whole or not at all
			}
		}()
	}
	return <-failed
}

// operate repeats deliveries, each once, and writes a document and a line of the journal for each.
func operate(ctx context.Context, s *Store) {
	for {
		page, err := s.Deliveries(ctx, outbox.Query{Limit: 5, Filter: outbox.Filter{Endpoints: []string{"a"}, States: []outbox.State{outbox.Delivered}}})
		if err != nil {
			return
		}
		for _, item := range page.Items {
			all, err := s.Edit(ctx, []outbox.Change{{Action: outbox.Redeliver, Delivery: item.ID, Endpoint: "c", Once: item.ID}})
			if err != nil {
				return
			}
			if all[0].Err == nil {
				fmt.Println("made", all[0].Delivery)
			}
			line, err := s.Append(ctx, []byte(item.ID))
			if err != nil {
				return
			}
			fmt.Println("line", line.N)
			d, err := s.Document(ctx, "job", "one")
			if err != nil && !errors.Is(err, outbox.ErrNotFound) {
				return
			}
			d, err = s.PutDocument(ctx, outbox.Document{Kind: "job", Name: "one", Revision: d.Revision, Body: fmt.Append(nil, d.Revision+1)})
			if err != nil {
				return
			}
			fmt.Println("document", d.Revision)
		}
	}
}

// startChild runs this test binary as a child and returns its output.
func startChild(t *testing.T, what, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+what+":"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestOneOwner opens a directory twice: in this process and from another (fault
// F10).
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir})
	for _, part := range []string{dir, strconv.Itoa(os.Getpid())} {
		if !errors.Is(err, outbox.ErrLocked) || !strings.Contains(err.Error(), part) {
			t.Errorf("second Open: %v, want ErrLocked that names %s", err, part)
		}
	}
	cmd, out := startChild(t, "hold", dir)
	if out.Scan(); !strings.Contains(out.Text(), outbox.ErrLocked.Error()) {
		t.Errorf("Open by another process: %s", out.Text())
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the other process did not fail")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	cmd, out = startChild(t, "hold", dir)
	if out.Scan(); out.Text() != "open" {
		t.Fatalf("Open by another process after Close: %s", out.Text())
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, outbox.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("Open beside another process: %v, want ErrLocked that names %d", err, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	openTest(t, Options{Dir: dir}) // the lock died with its owner
}

// rounds is how often something is repeated: few times in a push, many in a soak.
func rounds(t *testing.T, few int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("RELAY_SOAK_ROUNDS"), strconv.Itoa(few)))
	if err != nil {
		t.Fatalf("RELAY_SOAK_ROUNDS: %v", err)
	}
	return n
}

// TestKill kills a working process at a random instant, again and again on one
// outbox (fault F1). What it acknowledged must be there; what it delivered twice is bounded
// by what was in flight. RELAY_SOAK_ROUNDS sets the number of rounds.
func TestKill(t *testing.T) {
	rounds := rounds(t, 20)
	dir := t.TempDir()
	accepted, delivered, made, duplicates := map[string]bool{}, map[string]bool{}, map[string]bool{}, 0
	line, document := "0", "0"
	for round := range rounds {
		cmd, out := startChild(t, "work", dir)
		wait := time.Duration(rand.IntN(40_000)) * time.Microsecond
		from := "open" // on a busy machine the child may do nothing in that time, so sometimes it begins with its work
		if round%4 == 3 {
			from = "made"
		}
		kill := sync.OnceFunc(func() { time.AfterFunc(wait, func() { _ = cmd.Process.Kill() }) })
		for out.Scan() {
			word, id, _ := strings.Cut(out.Text(), " ")
			if word == from {
				kill()
			}
			switch word {
			case "open":
			case "accepted":
				accepted[id] = true
			case "delivered":
				if delivered[id] {
					duplicates++
				}
				delivered[id] = true
			case "made":
				made[id] = true
			case "line":
				line = id
			case "document":
				document = id
			default:
				t.Fatalf("the child says %q", out.Text())
			}
		}
		_ = cmd.Wait()
	}

	s := openTest(t, Options{Dir: dir})
	if err := sound(t.Context(), s); err != nil {
		t.Error(err)
	}
	lost := 0
	for id := range accepted {
		r, err := s.Lookup(t.Context(), id)
		if err == nil {
			r.Deliveries = slices.DeleteFunc(r.Deliveries, func(d outbox.DeliveryRecord) bool { return d.Manual })
		}
		if err != nil || len(r.Deliveries) != 2 || r.Deliveries[0].State == outbox.Delivered && !delivered[id] {
			t.Errorf("event %s: %+v, %v", id, r, err)
			lost++
		}
	}
	for id := range made {
		if r, err := s.LookupDelivery(t.Context(), id); err != nil || r.Deliveries[0].Origin == "" {
			t.Errorf("redelivery %s: %+v, %v", id, r, err)
		}
	}
	lines, err := s.Lines(t.Context(), 0, 1)
	if n, _ := strconv.ParseUint(line, 10, 64); err != nil || n > 0 && (len(lines) == 0 || lines[0].N < n) {
		t.Errorf("Lines: %+v, %v, want line %s", lines, err, line)
	}
	kept, err := s.Document(t.Context(), "job", "one")
	if n, _ := strconv.ParseUint(document, 10, 64); n > 0 && (err != nil || kept.Revision < n || string(kept.Body) != fmt.Sprint(kept.Revision)) {
		t.Errorf("Document: %+v, %v, want revision %s", kept, err, document)
	}
	t.Logf("%d redeliveries, %s lines, document %s", len(made), line, document)
	t.Logf("%d kills: %d accepted, %d lost, %d delivered, %d of them again", rounds, len(accepted), lost, len(delivered), duplicates)
	if len(accepted) == 0 || len(made) == 0 || duplicates > rounds*(backlog+16) {
		t.Error("this proves nothing")
	}
}
