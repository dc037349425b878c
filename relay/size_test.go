package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// largest is how many bytes the binary of a release may have on linux/amd64.
const largest = 30_000_000

func TestBinaryIsSmall(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "relay")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".") // as make build does
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > largest {
		t.Errorf(`the binary has %d bytes, %d too many. Built without -s -w, go tool nm -size -sort size shows what is large, and
go build -ldflags=-dumpdep what it is reached from. A new module? A template or reflect.Value.Method, which keep every
method (look for <ReflectMethod> in the output of -dumpdep)? slices.SortFunc of structs (internal/sorting says why not)?`,
			info.Size(), info.Size()-largest)
	}
}
