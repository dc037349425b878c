package main

import (
	"errors"
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is also the program: run under the name "relay" it is relay, so
// that stories and crash tests have a process to kill.
func TestMain(m *testing.M) {
	testscript.Main(aside{m}, map[string]func(){"relay": main})
}

// aside runs the tests with a state folder of their own, so that no Relay of a test has its
// run file in the tree. The race detector must not let every verb sleep a second at its end.
type aside struct{ *testing.M }

func (m aside) Run() int {
	dir, err := os.MkdirTemp("", "relay-state-")
	if err == nil {
		err = errors.Join(os.Setenv("XDG_STATE_HOME", dir), os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	}
	if err == nil { // unless -parallel is given; the tests mostly wait for processes
		err = flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
	}
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	return m.M.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", e.WorkDir+"/state")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return os.MkdirAll(e.WorkDir+"/state", 0o700)
		},
	})
}
