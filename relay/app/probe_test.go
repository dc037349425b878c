package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relay/config"
	"relay/outbox/redisstream/redistest"
)

func TestProbeFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                         "ok the folder " + dir + " exists and can be written",
		filepath.Join(dir, "a/b"):   "ok the folder " + filepath.Join(dir, "a/b") + " does not exist yet, and can be made",
		file:                        "refuse " + file + " is not a folder",
		filepath.Join(file, "x"):    "refuse the folder " + filepath.Join(file, "x") + " cannot be reached",
		"/proc/self/relay-is-not-x": "refuse the folder /proc/self cannot be written",
	} {
		found, err := ProbeOutbox(t.Context(), config.Config{Outbox: config.Outbox{Engine: "sqlite", Path: path}})
		if err != nil || len(found) != 1 || !strings.HasPrefix(found[0].Level+" "+found[0].What, want) {
			t.Errorf("%s: %v, %v", path, found, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestProbeRedis(t *testing.T) {
	s := redistest.Start(t, "--requirepass", "canary1")
	parse := func(url string) config.Config {
		t.Helper()
		f, err := config.Parse("relay.hcl", []byte("log {}\noutbox \"redis\" {\n url = \""+url+"\"\n durability = \"fsync\"\n}\n"), os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		return f.Config
	}
	found, err := ProbeOutbox(t.Context(), parse(s.TCPURL()))
	if err != nil {
		t.Fatal(err)
	}
	// The level needs a server that can wait for its disk; newer ones can.
	if len(found) == 0 || found[0].Level != "ok" {
		t.Errorf("got %v", found)
	}
	_, err = ProbeOutbox(t.Context(), parse("redis://:canary2@"+s.Addr()))
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "redis://:***@"+s.Addr()) {
		t.Errorf("got %v", err)
	}
}
