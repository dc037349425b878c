package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsKey(t *testing.T) {
	long, other := strings.Repeat("a", 32), strings.Repeat("b", 40)
	env := environ{"KEY": long, "OLD": other, "SHORT": "short-canary"}
	for src, want := range map[string]string{
		`secrets_key = [env("KEY"), env("OLD")]`:                    "",
		`secrets_key = [env("SHORT")]`:                              "at least 32 characters",
		`secrets_key = env("KEY")`:                                  "Write a list",
		`secrets_key = [` + strings.Repeat(`env("KEY"), `, 9) + `]`: "At most 8",
	} {
		f, err := Parse("relay.hcl", []byte(src+"\nendpoint \"a\" {}\n"), env.get)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "relay.hcl:1,")):
			t.Errorf("%s: %v, want %q", src, err, want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("the error quotes a key: %v", err)
		case err == nil && (len(f.Config.SecretsKey) != 2 || f.Config.SecretsKey[1].Reveal() != other):
			t.Errorf("got %d keys", len(f.Config.SecretsKey))
		}
	}
}

// The top level of several files is one, and what stands there twice is told.
func TestSecretsKeyInSeveralFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"a.hcl": "endpoint \"a\" {}\n",
		"b.hcl": "secrets_key = [file(\"key\")]\n",
		"c.hcl": "secrets_key = [\"" + strings.Repeat("x", 32) + "\"]\n",
		"key":   strings.Repeat("k", 32) + "\n",
	})
	in := func(names ...string) (paths []string) {
		for _, n := range names {
			paths = append(paths, filepath.Join(dir, n))
		}
		return paths
	}
	f, err := Load(in("a.hcl", "b.hcl"), environ{}.get)
	if err != nil || len(f.Config.SecretsKey) != 1 || f.Config.SecretsKey[0].Reveal() != strings.Repeat("k", 32) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(in("a.hcl", "b.hcl", "c.hcl"), environ{}.get); err == nil || !strings.Contains(err.Error(), "Duplicate secrets_key") {
		t.Errorf("twice: %v", err)
	}
}
