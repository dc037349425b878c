package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relay/internal/testkit"
)

// household is a state folder that users of one group share, as a volume of fsGroup is.
type household struct {
	t             *testing.T
	program, file string
	state         string
}

const (
	firstUser, secondUser, strangeUser = 21001, 21002, 21003
	sharedGroup                        = 22000
)

func newHousehold(t *testing.T) *household {
	if os.Geteuid() != 0 {
		t.Skip("only root can run Relay as other users; TestFileMode and TestWide of internal/access hold what is decided here")
	}
	dir, err := os.MkdirTemp(folderOfAll(t), "relay-users-") // t.TempDir is for this user alone
	testkit.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &household{t: t, program: filepath.Join(dir, "relay"), file: filepath.Join(dir, "relay.hcl"), state: filepath.Join(dir, "state")}
	self, err := os.Executable()
	testkit.Must(t, err)
	program, err := os.ReadFile(self)
	testkit.Must(t, err)
	text := fmt.Sprintf("ingest {\n unix %q {}\n}\nadmin {\n http = \"\"\n unix = %q\n}\nendpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n enabled = false\n}\n",
		filepath.Join(h.state, "relay.sock"), filepath.Join(h.state, "admin.sock"))
	testkit.Must(t, errors.Join(
		os.Chmod(dir, 0o755), os.WriteFile(h.program, program, 0o755), os.WriteFile(h.file, []byte(text), 0o644), os.Mkdir(h.state, 0o700),
	))
	return h
}

// folderOfAll is a folder for temporary files that all users can reach, as root's own may not be.
func folderOfAll(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		reached := true
		for at := filepath.Clean(dir); reached && at != "/"; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			reached = err == nil && info.Mode().Perm()&0o001 != 0
		}
		if reached {
			return dir
		}
	}
	t.Fatal("no folder for temporary files can be reached by all users")
	return ""
}

// folder gives the state folder to a user and the group.
func (h *household) folder(user int, mode uint32) {
	h.t.Helper()
	testkit.Must(h.t, errors.Join(os.Chown(h.state, user, sharedGroup), syscall.Chmod(h.state, mode)))
}

// as is Relay run by a user, who is in the group unless the user is the strange one.
func (h *household) as(user uint32, args ...string) *exec.Cmd {
	c := &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{sharedGroup}}
	if user == strangeUser {
		c.Groups = []uint32{}
	}
	return &exec.Cmd{
		Path: h.program, Args: append([]string{"relay"}, args...), Dir: "/", SysProcAttr: &syscall.SysProcAttr{Credential: c},
		Env: []string{"STATE_DIRECTORY=" + h.state, "PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE")},
	}
}

// serve runs Relay as a user until it is ready, sends it an event, and ends it with a
// signal. It returns what Relay said.
func (h *household) serve(user uint32, end syscall.Signal) string {
	h.t.Helper()
	var log testkit.Log
	cmd := h.as(user, "serve", "--config", h.file)
	cmd.Stderr = &log
	testkit.Must(h.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	testkit.Until(h.t, "ready", func() bool {
		select {
		case err := <-ended:
			h.t.Fatalf("as user %d: %v\n%s", user, err, log.String())
		default:
		}
		return h.as(user, "health").Run() == nil
	})
	if out, err := h.as(user, "send", "x.y", "{}").CombinedOutput(); err != nil {
		h.t.Errorf("send as user %d: %v, %s", user, err, out)
	}
	testkit.Must(h.t, cmd.Process.Signal(end))
	<-ended
	return log.String()
}

// A state folder that the group of its users may read and write goes on with another user,
// after a stop and after a kill (a volume of fsGroup whose pod changes runAsUser).
func TestChangeOfUser(t *testing.T) {
	h := newHousehold(t)
	h.folder(0, 0o2770)
	for _, step := range []struct {
		user uint32
		end  syscall.Signal
	}{{firstUser, syscall.SIGINT}, {secondUser, syscall.SIGKILL}, {firstUser, syscall.SIGKILL}, {secondUser, syscall.SIGINT}} {
		if log := h.serve(step.user, step.end); strings.Contains(log, "chmod") {
			t.Errorf("as user %d: %s", step.user, log)
		}
	}
	// Nobody outside the group can read it, and a warning keeps the group's bits.
	for _, name := range []string{"relay.db", "relay.db-wal", "relay.lock", "relay.ballast"} {
		info, err := os.Stat(filepath.Join(h.state, name))
		if err == nil && info.Mode().Perm() != 0o660 {
			err = fmt.Errorf("mode %#o", info.Mode().Perm())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.folder(0, 0o2777)
	if log := h.serve(firstUser, syscall.SIGINT); !strings.Contains(log, h.state+" has mode 2777 and belongs to user 0: chmod o-rwx ") || strings.Contains(log, "chmod 700") {
		t.Errorf("in a folder for everybody: %s", log)
	}
	// Files of others that the group may use, which only their owner can change.
	h.folder(0, 0o2770)
	entries, err := os.ReadDir(h.state)
	testkit.Must(t, err)
	for _, e := range entries {
		path := filepath.Join(h.state, e.Name())
		testkit.Must(t, errors.Join(os.Chown(path, 0, sharedGroup), os.Chmod(path, 0o664)))
	}
	if log := h.serve(secondUser, syscall.SIGINT); !strings.Contains(log, "relay.db has mode 0664 and belongs to user 0: chmod o-rwx ") {
		t.Errorf("with files of others: %s", log)
	}
}

// A folder that cannot be used is named with all that it takes to mend it.
func TestFolderOfAnotherUser(t *testing.T) {
	h := newHousehold(t)
	fail := func(user uint32, want ...string) {
		t.Helper()
		out, err := h.as(user, "serve", "--config", h.file).CombinedOutput()
		if err == nil {
			t.Fatalf("as user %d it went: %s", user, out)
		}
		want = append(want, fmt.Sprintf("this process is user %d of groups %d", user, user), "in Kubernetes set fsGroup", "$STATE_DIRECTORY")
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("as user %d: %s\nlacks %q", user, out, w)
			}
		}
	}
	h.folder(firstUser, 0o700)
	fail(secondUser, fmt.Sprintf("folder %s has owner %d:%d, mode 0700", h.state, firstUser, sharedGroup), fmt.Sprintf("chown -R %d %s", secondUser, h.state),
		fmt.Sprintf("run this as user %d, who has the folder, or, if Relay is to run as user %d, chown", firstUser, secondUser)) // not to be taken from a Relay at work
	h.folder(0, 0o2750) // for reading only
	fail(firstUser, fmt.Sprintf("folder %s has owner 0:%d, mode 2750", h.state, sharedGroup), "chown -R")
	h.folder(0, 0o2770)
	fail(strangeUser, fmt.Sprintf("folder %s has owner 0:%d, mode 2770", h.state, sharedGroup), "chown -R")

	// A file in it that only its former user can read.
	h.serve(firstUser, syscall.SIGINT)
	for _, name := range []string{"relay.lock", "relay.db"} {
		path := filepath.Join(h.state, name)
		testkit.Must(t, os.Chmod(path, 0o600))
		fail(secondUser, fmt.Sprintf("%s has owner %d:%d, mode 0600", path, firstUser, sharedGroup))
		testkit.Must(t, os.Chmod(path, 0o660))
	}
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	fail(firstUser, fmt.Sprintf("folder %s has owner 0:0", filepath.Dir(h.state)), fmt.Sprintf("(mkdir -p %s && chown %d %s)", h.state, firstUser, h.state))
}
