package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/seal"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const file = `
runtime {
  max_endpoints = 5
  per_tenant    = 2
}
policy "customer" {}
endpoint "fixed" {
  url  = "https://fixed.test/"
  sign = ["none"]
}
`

func policyOf(t testing.TB, text string) *policy.Policy {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keysOf(t testing.TB, texts ...string) *seal.Keys {
	t.Helper()
	k, err := seal.New(texts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var keyA, keyB = strings.Repeat("a", 32), strings.Repeat("b", 32)

// world is a Registry at work, in a bubble.
type world struct {
	*Registry
	t       *testing.T
	changed atomic.Int64
	takes   atomic.Int64 // how long Changed takes
}

func open(t *testing.T, store outbox.Documents, text string, keys *seal.Keys) *world {
	t.Helper()
	w := &world{t: t}
	w.Registry = New(Options{Store: store, Keys: keys, File: policyOf(t, text), Changed: w.change, Log: zerolog.Nop()})
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { _ = w.Follow(ctx) })
	t.Cleanup(func() {
		cancel()
		following.Wait()
	})
	return w
}

func (w *world) change() {
	time.Sleep(time.Duration(w.takes.Load()))
	w.changed.Add(1)
}

func newStore() *outboxtest.Mem { return outboxtest.NewMem(outboxtest.MemOptions{Shared: true}) }

func (w *world) create(object string) Endpoint {
	w.t.Helper()
	e, err := w.Create(w.t.Context(), json.RawMessage(object))
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) names() (names []string) {
	for _, e := range w.Made() {
		names = append(names, e.Name)
	}
	return names
}

// An endpoint comes into force at once here, within a second elsewhere, and is there after a restart. Its secret is
// made, and lies sealed in the outbox.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		one := open(t, store, file, keysOf(t, keyA))
		two := open(t, store.Join(), file, keysOf(t, keyA))
		e := one.create(`{"name":"acme","url":"https://acme.test/?a=1","tenants":["acme"],"description":"big 12345678901234567890"}`)
		if e.Name != "acme" || e.Secrets != 1 || e.Flaws != nil || e.Revision == 0 || e.Created.IsZero() {
			t.Errorf("made %+v", e)
		}
		if got := one.names(); !slices.Equal(got, []string{"acme"}) || one.changed.Load() == 0 {
			t.Errorf("in force: %v, told %d times", got, one.changed.Load())
		}
		time.Sleep(time.Second)
		if got := two.names(); !slices.Equal(got, []string{"acme"}) || two.changed.Load() == 0 {
			t.Errorf("in force at the other Relay: %v, told %d times", got, two.changed.Load())
		}
		secrets, err := two.Secrets("acme")
		if err != nil || len(secrets.Secrets) != 1 || !strings.HasPrefix(secrets.Secrets[0].Secret, "whsec_") {
			t.Fatalf("secrets: %+v, %v", secrets, err)
		}
		d, err := store.Document(t.Context(), Kind, "acme")
		if err != nil || strings.Contains(string(d.Body), secrets.Secrets[0].Secret) {
			t.Errorf("the secret lies open in the outbox: %v", err)
		}
		if _, err := two.Patch(t.Context(), "acme", e.Revision, json.RawMessage(`{"description":null,"timeout":{"total":"9s"}}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := one.Made()[0]; got.Timeout.Total != 9*time.Second || got.Description != "" || got.URL.RawQuery != "a=1" {
			t.Errorf("after the patch of the other Relay: %+v", got)
		}
		if again, err := one.Secrets("acme"); err != nil || again.Secrets[0] != secrets.Secrets[0] {
			t.Errorf("the patch changed the secret: %v", err)
		}
		again := open(t, store.Crash(), file, keysOf(t, keyB, keyA)) // a new key, the old one behind it
		if got := again.names(); !slices.Equal(got, []string{"acme"}) {
			t.Errorf("after a restart: %v", got)
		}
		if err := again.Delete(t.Context(), "acme", 0); err != nil || again.names() != nil {
			t.Errorf("after delete: %v, %v", again.names(), err)
		}
		if _, err := again.Get("acme"); !errors.Is(err, ErrUnknown) {
			t.Errorf("Get after delete: %v", err)
		}
	})
}

// Two Relays that make one name at once: one wins. Two that change one endpoint: none of the changes is lost.
func TestRaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		relays := []*world{open(t, store, file, keysOf(t, keyA)), open(t, store.Join(), file, keysOf(t, keyA)), open(t, store.Join(), file, keysOf(t, keyA))}
		var made, exist atomic.Int64
		var wg sync.WaitGroup
		for i, w := range relays {
			wg.Go(func() {
				_, err := w.Create(t.Context(), json.RawMessage(fmt.Sprintf(`{"name":"acme","url":"https://acme.test/%d"}`, i)))
				switch {
				case err == nil:
					made.Add(1)
				case errors.Is(err, ErrExists):
					exist.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 || exist.Load() != 2 {
			t.Errorf("%d made, %d refused", made.Load(), exist.Load())
		}
		time.Sleep(time.Second)
		for i, w := range relays {
			wg.Go(func() {
				patch := fmt.Sprintf(`{"headers":{"X-%d":"a"}}`, i)
				if _, err := w.Patch(t.Context(), "acme", 0, json.RawMessage(patch)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		for _, w := range relays {
			if n := len(w.Made()[0].Headers); n != 3 {
				t.Errorf("%d headers", n)
			}
		}
		e, err := relays[0].Get("acme")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := relays[1].Patch(t.Context(), "acme", e.Revision-1, json.RawMessage(`{}`)); !errors.Is(err, ErrChanged) {
			t.Errorf("patch of an older revision: %v", err)
		}
		if err := relays[1].Delete(t.Context(), "acme", e.Revision-1); !errors.Is(err, ErrChanged) {
			t.Errorf("delete of an older revision: %v", err)
		}
	})
}

// late is a store whose answers to Documents are held back.
type late struct {
	*outboxtest.Mem
	hold chan chan struct{} // each answer waits for the end of what it gets here; nil for no wait
}

func (l *late) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	all, revision, err := l.Mem.Documents(ctx, kind, after)
	select {
	case wait := <-l.hold:
		<-wait
	default:
	}
	return all, revision, err
}

// An answer from before a delete that comes after it brings the endpoint not back.
func TestDeleteBeforeALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &late{newStore(), make(chan chan struct{}, 2)}
		w := open(t, store, file, keysOf(t, keyA))
		first, second := make(chan struct{}), make(chan struct{})
		store.hold <- first
		store.hold <- second
		w.create(`{"name":"acme","url":"https://acme.test/"}`) // Follow reads it, and waits
		synctest.Wait()
		if err := w.Delete(t.Context(), "acme", 0); err != nil {
			t.Error(err)
		}
		told := w.changed.Load()
		close(first)
		synctest.Wait() // Follow has taken it, and reads on
		if _, err := w.Get("acme"); !errors.Is(err, ErrUnknown) || w.names() != nil || w.changed.Load() != told {
			t.Errorf("after the late answer: %v, in force: %v, told %d times more", err, w.names(), w.changed.Load()-told)
		}
		close(second)
		w.create(`{"name":"acme","url":"https://acme.test/"}`) // another one
		if got := w.names(); !slices.Equal(got, []string{"acme"}) {
			t.Errorf("made again: %v", got)
		}
	})
}

// A change is answered when it is in force, also when that takes long; once Follow has ended, without a wait.
func TestChangeWaitsForItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		w := open(t, store, file, nil)
		w.takes.Store(int64(1500 * time.Millisecond)) // a reload is under way
		for i := range 2 {                            // the second one comes while tell rests
			w.create(`{"url":"https://a.test/","sign":["none"]}`)
			if n := w.changed.Load(); n != int64(i+1) {
				t.Errorf("%d of %d changes are in force", n, i+1)
			}
		}
		r := New(Options{Store: store.Join(), File: policyOf(t, file), Changed: func() {}, Log: zerolog.Nop()})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Follow(ctx); err != nil {
			t.Error(err)
		}
		began := time.Now()
		if _, err := r.Create(t.Context(), []byte(`{"url":"https://a.test/","sign":["none"]}`)); err != nil || time.Since(began) > 0 {
			t.Errorf("nobody follows: %v after %s", err, time.Since(began))
		}
	})
}

// slow is a store whose writes take a time in which others decide, too.
type slow struct{ *outboxtest.Mem }

func (s slow) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	time.Sleep(time.Millisecond)
	return s.Mem.PutDocument(ctx, d)
}

// Quotas hold for endpoints that are made, or given other tenants, at the same time.
func TestQuotasAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, slow{newStore()}, file, nil)
		at := func(n int, do func(i int) error) (made int64) {
			var all sync.WaitGroup
			var done atomic.Int64
			for i := range n {
				all.Go(func() {
					switch err := do(i); {
					case err == nil:
						done.Add(1)
					case !errors.Is(err, ErrQuota):
						t.Error(err)
					}
				})
			}
			all.Wait()
			return done.Load()
		}
		create := func(tenant string) func(int) error {
			return func(int) error {
				_, err := w.Create(t.Context(), fmt.Appendf(nil, `{"url":"https://a.test/","sign":["none"],"tenants":[%q]}`, tenant))
				return err
			}
		}
		if n := at(10, create("acme")); n != 2 {
			t.Errorf("%d endpoints of a tenant, of at most 2", n)
		}
		if n := at(10, func(i int) error { return create(fmt.Sprint("t", i))(i) }); n != 3 {
			t.Errorf("%d endpoints beside 2, of at most 5", n)
		}
		names := []string{}
		for _, e := range w.List() {
			names = append(names, e.Name)
		}
		if n := at(len(names), func(i int) error {
			_, err := w.Patch(t.Context(), names[i], 0, []byte(`{"tenants":["beta"]}`))
			return err
		}); n != 2 {
			t.Errorf("%d endpoints were given a tenant, of at most 2", n)
		}
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		w := open(t, store, file, keysOf(t, keyA))
		w.create(`{"name":"a1","url":"https://a.test/","tenants":["a"]}`)
		w.create(`{"name":"a2","url":"https://a.test/","tenants":["a","b"]}`)
		for object, want := range map[string]string{
			`[]`: "write a JSON object",
			`{"name":"fixed","url":"https://a.test/"}`:                               ErrFixed.Error(),
			`{"name":"a1","url":"https://a.test/"}`:                                  ErrExists.Error(),
			`{"name":7,"url":"https://a.test/"}`:                                     "/name: write a text",
			`{"name":"a b","url":"https://a.test/"}`:                                 "name",
			`{"name":"","url":"https://a.test/"}`:                                    "name",
			`{"url":"https://a.test/","secrets":["0123456789abcdef"]}`:               "/secrets: give one",
			`{"url":"https://a.test/","secret":"canary-15-bytes","sign":["github"]}`: "secrets",
			`{"url":"https://a.test/","tenants":["b","a"]}`:                          `per_tenant = 2, of tenant "a"`,
			`{"url":"nope"}`: "/url: ",
		} {
			_, err := w.Create(t.Context(), json.RawMessage(object))
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v, want %s", object, err, want)
			}
		}
		for patch, want := range map[string]string{
			`{"secret":"x"}`:                "/secret: a secret is changed by rotation",
			`{"secrets":[]}`:                "/secrets: a secret is changed by rotation",
			`{"name":"other"}`:              "/name: a name cannot be changed",
			`{"url":"https://a.test/?***"}`: "/url: *** stands for a value",
			`{"headers":{"X-Key":"***"}}`:   "/headers/X-Key: *** stands for a value",
			`{"tls":{"key":"***"}}`:         "/tls/key: *** stands for a value",
			`{"url":null}`:                  "Missing url",
			`"x"`:                           "write a JSON object",
		} {
			if _, err := w.Patch(t.Context(), "a1", 0, json.RawMessage(patch)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", patch, err, want)
			}
		}
		if _, err := w.Patch(t.Context(), "fixed", 0, json.RawMessage(`{}`)); !errors.Is(err, ErrFixed) {
			t.Errorf("patch of the file's: %v", err)
		}
		if err := w.Delete(t.Context(), "nobody", 0); !errors.Is(err, ErrUnknown) {
			t.Errorf("delete of none: %v", err)
		}
		for i := range 3 {
			w.create(fmt.Sprintf(`{"name":"n%d","url":"https://a.test/"}`, i))
		}
		if _, err := w.Create(t.Context(), json.RawMessage(`{"url":"https://a.test/"}`)); !errors.Is(err, ErrQuota) {
			t.Errorf("the sixth: %v", err)
		}
		if e, err := w.Replace(t.Context(), "n0", 0, json.RawMessage(`{"name":"n0","url":"https://b.test/"}`)); err != nil || e.Secrets != 1 {
			t.Errorf("replace: %+v, %v", e, err)
		}
		off := open(t, newStore(), `runtime { enabled = false }`, nil)
		if _, err := off.Create(t.Context(), json.RawMessage(`{"url":"https://a.test/","sign":["none"]}`)); !errors.Is(err, ErrOff) {
			t.Errorf("where it is off: %v", err)
		}
	})
}

// Another file compiles the endpoints again; those that do not fit it are named before it is used.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, newStore(), file, keysOf(t, keyA))
		w.create(`{"name":"acme","url":"https://acme.test/","policy":"customer"}`)
		w.create(`{"name":"other","url":"https://other.test/"}`)
		errs, _ := w.Prepare(policyOf(t, `policy "default" {}`))
		if len(errs) != 1 || errs["acme"][0].Pointer != "/policy" {
			t.Errorf("without its policy: %v", errs)
		}
		if got := w.names(); !slices.Equal(got, []string{"acme", "other"}) {
			t.Errorf("Prepare changed what is in force: %v", got)
		}
		errs, use := w.Prepare(policyOf(t, `
			policy "customer" { concurrency = 3 }
			endpoint "other" {
			  url  = "https://file.test/"
			  sign = ["none"]
			}`))
		use()
		made := w.Made()
		if len(errs) != 0 || len(made) != 1 || made[0].Concurrency != 3 {
			t.Errorf("%v, in force: %v", errs, w.names())
		}
		if _, err := w.Get("other"); !errors.Is(err, ErrFixed) {
			t.Errorf("a name that the file took: %v", err)
		}
	})
}
