package main

import "golang.org/x/sys/unix"

// hardenProcess keeps signing secrets out of core dumps and away from debuggers of the same user.
// Both calls only restrict access; if the system refuses them, there is no alternative. An app
// that runs as a child would inherit the limit, which it could not raise again; the second call
// alone prevents a core dump of this process.
func hardenProcess(hasApp bool) {
	if !hasApp {
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	}
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
