// Package child runs the app of relay serve --exec: it starts the app, passes signals on, and
// reaps what the app leaves behind, as the first process of a container must.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// App is a program that runs as a child of this process, on its standard input and outputs.
type App struct {
	process *os.Process
	ended   chan struct{}
	status  unix.WaitStatus // valid once ended is closed
}

// Find returns the path of the program, as a shell finds it.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find the app: %w", err)
	}
	return path, nil
}

// Start starts the program at path. args begin with its name; env is its whole environment.
//
// From then on this process reaps all its children, so it must not wait for another one. On Linux
// the orphans among the app's descendants become its children, too.
func Start(path string, args, env []string) (*App, error) {
	adoptOrphans()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return nil, fmt.Errorf("start the app: %w", err)
	}
	a := &App{process: p, ended: make(chan struct{})}
	go a.reap()
	return a, nil
}

// reap waits for every child, until there is none.
func (a *App) reap() {
	var end sync.Once
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD: there is none, so none can come
			end.Do(func() { close(a.ended) })
			return
		case pid == a.process.Pid && !status.Stopped() && !status.Continued():
			end.Do(func() { a.status = status; close(a.ended) })
		}
	}
}

// PID is the app's process number.
func (a *App) PID() int { return a.process.Pid }

// Ended is closed when the app has ended.
func (a *App) Ended() <-chan struct{} { return a.ended }

// Over tells whether the app has ended.
func (a *App) Over() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// ExitCode is what the app ended with: its exit code, or 128 and the number of the signal that
// killed it, as a shell says it. It waits for the end.
func (a *App) ExitCode() int {
	<-a.ended
	if a.status.Signaled() {
		return 128 + int(a.status.Signal())
	}
	return a.status.ExitStatus()
}

// Passed are the signals that Pass passes on: those that a program may handle, except those of
// job control and those that tell of this process's own children, timers and pipes.
func Passed() []os.Signal {
	return []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGWINCH, syscall.SIGCONT,
	}
}

// Pass sends the app a signal that this process got. A signal of the terminal's keys reaches the
// app by itself, because the kernel sends it to both. It does nothing after the app's end.
func (a *App) Pass(s os.Signal) {
	if a.Over() { // its number may be another process's by now
		return
	}
	if (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) && atTerminal() {
		return
	}
	_ = a.process.Signal(s) // it has just ended
}

// Kill ends the app at once.
func (a *App) Kill() { a.Pass(os.Kill) }

// atTerminal tells whether this process is in the foreground of a terminal.
func atTerminal() bool {
	if !term.IsTerminal(0) {
		return false
	}
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
