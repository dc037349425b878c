package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"relay/internal/testkit"
)

// A reload drops the syntax of the files before the new policy takes the place of the old one: of
// ten thousand endpoints it is the larger part of both.
func TestReloadForgetsTheSyntax(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.hcl")
	testkit.Must(t, os.WriteFile(path, []byte("endpoint \"a\" {\n url = \"https://a.test\"\n sign = [\"none\"]\n}\n"), 0o600))
	c := &command{streams: streams{out: io.Discard, err: io.Discard}, env: func(string) (string, bool) { return "", false }}
	file, p, err := c.again([]string{path}, nil)()
	if err != nil || p.Endpoint("a") == nil {
		t.Fatal(err)
	}
	if n := len(file.Root().Blocks("endpoint", true)); n > 0 {
		t.Errorf("%d blocks are kept", n)
	}
	if len(file.Reads()) != 1 {
		t.Errorf("it was read from %v", file.Reads())
	}
}
