package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is also the program: run under the name "relay" it is relay, so
// that stories and crash tests have a process to kill.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"relay": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", e.WorkDir+"/state")
			return os.MkdirAll(e.WorkDir+"/state", 0o700)
		},
	})
}
