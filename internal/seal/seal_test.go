package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func keys(t *testing.T, texts ...string) *Keys {
	t.Helper()
	k, err := New(texts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	first  = strings.Repeat("a", MinKey)
	second = strings.Repeat("b", MinKey)
)

func TestSealAndOpen(t *testing.T) {
	k := keys(t, first)
	for _, value := range []string{"", "x", strings.Repeat("long ", 10_000)} {
		sealed := k.Seal([]byte(value), "here")
		if len(value) > 1 && bytes.Contains(sealed, []byte(value[:4])) {
			t.Error("the sealed value shows the value")
		}
		got, err := k.Open(sealed, "here")
		if err != nil || string(got) != value {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if bytes.Equal(sealed, k.Seal([]byte(value), "here")) {
			t.Error("two sealings are equal: the nonce repeats")
		}
	}
}

func TestRotation(t *testing.T) {
	old := keys(t, first)
	sealed := old.Seal([]byte("secret"), "p")
	both := keys(t, second, first)
	if got, err := both.Open(sealed, "p"); err != nil || string(got) != "secret" {
		t.Errorf("an old key no longer opens: %q, %v", got, err)
	}
	if both.Fresh(sealed) || !old.Fresh(sealed) {
		t.Error("Fresh does not tell the first key")
	}
	again := both.Seal([]byte("secret"), "p")
	if _, err := keys(t, second).Open(again, "p"); err != nil {
		t.Errorf("the first key does not seal: %v", err)
	}
	if _, err := keys(t, second).Open(sealed, "p"); !errors.Is(err, ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
	var none *Keys
	if _, err := none.Open(sealed, "p"); !errors.Is(err, ErrKey) {
		t.Errorf("without keys: %v, want ErrKey", err)
	}
}

func TestDamageIsNoticed(t *testing.T) {
	k := keys(t, first)
	sealed := k.Seal([]byte("secret"), "p")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Open(bad, "p"); err == nil {
			t.Fatalf("byte %d may change", i)
		}
		if _, err := k.Open(sealed[:i], "p"); err == nil {
			t.Fatalf("%d bytes are enough", i)
		}
	}
	if _, err := k.Open(sealed, "q"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a value opens at another place: %v", err)
	}
	if _, err := k.Open([]byte("plain text"), "p"); !errors.Is(err, ErrNotSealed) {
		t.Errorf("got %v, want ErrNotSealed", err)
	}
}

func TestKeysAreLong(t *testing.T) {
	_, err := New([]string{first, "short"})
	if err == nil || !strings.Contains(err.Error(), "key 2") || strings.Contains(err.Error(), "short ") {
		t.Errorf("got %v", err)
	}
	if k, err := New(nil); k != nil || err != nil {
		t.Errorf("no keys: %v, %v", k, err)
	}
}
