package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
)

var fence = regexp.MustCompile("(?ms)^```(\\w+)([^\n]*)\n(.*?)^```$")

// blocks are the fenced blocks of a page in one language, with what follows the language.
func blocks(text, language string) (notes, sources []string) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			notes, sources = append(notes, strings.TrimSpace(m[2])), append(sources, m[3])
		}
	}
	return notes, sources
}

// Every block of HCL is a file that Relay takes. Files that it reads are there, and every
// environment variable holds a secret of the right form.
func TestBlocksOfHCLAreFiles(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	env := func(name string) (string, bool) {
		if strings.HasSuffix(name, "_TOKEN") {
			return "token-of-" + name, true // no two are the same
		}
		return secret, name != "RELAY_CONFIG" && name != "STATE_DIRECTORY" && name != "XDG_STATE_HOME" && name != "REDIS_URL"
	}
	found := 0
	for path, text := range pages(t) {
		_, sources := blocks(text, "hcl")
		for i, source := range sources {
			found++
			dir := t.TempDir()
			for _, m := range regexp.MustCompile(`file\("([^"]+)"\)`).FindAllStringSubmatch(source, -1) {
				near := strings.TrimPrefix(m[1], "/")
				source = strings.ReplaceAll(source, `"`+m[1]+`"`, `"`+near+`"`)
				content := secret
				if strings.HasSuffix(near, ".json") {
					content = `{"type": "object", "required": ["amount"]}`
				}
				if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(near)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, near), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			file, err := config.Parse(filepath.Join(dir, "relay.hcl"), []byte(source), env)
			if err == nil {
				_, err = policy.Decode(file)
			}
			if err != nil {
				t.Errorf("%s, block %d of hcl:\n%v", path, i+1, err)
			}
		}
	}
	if found < 12 {
		t.Errorf("found only %d blocks: the test no longer sees them", found)
	}
}

// notRun is the most blocks of commands that cannot be tried here; each says why.
const notRun = 10

// Every command can be typed as it stands. The blocks of a page are one session, in a folder
// of its own, with the real binary.
func TestBlocksOfCommandsRun(t *testing.T) {
	skipped := 0
	for path, text := range pages(t) {
		notes, sources := blocks(text, "sh")
		var session []string
		for i, source := range sources {
			if strings.HasPrefix(notes[i], "run-by: ") {
				continue // another test runs it, on an outbox in Redis
			}
			if reason, skip := strings.CutPrefix(notes[i], "not-run: "); skip {
				skipped++
				t.Logf("%s, block %d of sh is not run: %s", path, i+1, reason)
				continue
			}
			session = append(session, source)
		}
		if len(session) > 0 {
			t.Run(path, func(t *testing.T) {
				t.Parallel()
				runSession(t, session)
			})
		}
	}
	if skipped > notRun {
		t.Errorf("%d blocks are not run, at most %d may be", skipped, notRun)
	}
}

// runSession runs blocks one after the other in one shell, as if they were pasted together.
func runSession(t *testing.T, blocks []string) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "relay")); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n")
	for _, b := range blocks {
		script.WriteString(b)
		if strings.Contains(b, "relay serve &") && !strings.Contains(b, "relay health --wait") {
			t.Error("a block starts Relay in the background, and does not wait for it: the next command is typed at once")
		}
		script.WriteString("\n")
	}
	text := freePorts(t, script.String())
	if strings.Contains(text, "relay sink") {
		text += "until grep -q '200 .*signature ok' out; do sleep 0.05; done\n" // the receiver gets it in the end
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_STATE_HOME=", "STATE_DIRECTORY=", "RELAY_CONFIG=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		t.Errorf("%v\n%s\nof:\n%s", err, said, text)
	}
}

// freePorts gives a session ports of its own: that of the receiver, and in the file those that
// Relay has by default.
func freePorts(t *testing.T, script string) string {
	receiver := testkit.Loopback(testkit.Port(t))
	script = strings.ReplaceAll(script, "127.0.0.1:9000", receiver)
	script = strings.ReplaceAll(script, "relay sink ", "relay sink --listen "+receiver+" ")
	own, address := "ingest {\n  unix \"relay-data/relay.sock\" {}\n}\n", fmt.Sprintf("  http = \"127.0.0.1:%d\"\n", testkit.Port(t))
	if strings.Contains(script, "\nadmin {\n") {
		script = strings.Replace(script, "\nadmin {\n", "\nadmin {\n"+address, 1)
	} else {
		own += "admin {\n" + address + "}\n"
	}
	return strings.Replace(script, "cat > relay.hcl <<'HCL'\n", "cat > relay.hcl <<'HCL'\n"+own, 1)
}
