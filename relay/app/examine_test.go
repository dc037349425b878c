package app

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"relay/config"
)

func TestExamineListeners(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	dir := t.TempDir()
	socket := filepath.Join(dir, "taken.sock")
	un, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer un.Close()

	free := config.Config{Ingest: config.Ingest{HTTP: []config.HTTP{{Addr: "127.0.0.1:0"}}, Unix: []config.Unix{{Path: filepath.Join(dir, "new", "x.sock")}}}}
	if all := ExamineListeners(free); len(all) != 0 {
		t.Errorf("free addresses: %+v", all)
	}
	all := ExamineListeners(config.Config{
		Ingest: config.Ingest{HTTP: []config.HTTP{{Addr: taken}}, Unix: []config.Unix{{Path: socket}}},
		Admin:  config.Admin{HTTP: taken, Unix: socket},
		Fronts: []config.Front{{Host: "a.example", HTTPS: []string{taken}}, {Host: "b.example", HTTPS: []string{taken}}},
	})
	wants := []string{"ingest cannot listen on " + taken, "admin cannot listen on " + taken, "front cannot listen on " + taken, "ingest cannot listen on " + socket + ": another program", "admin cannot listen on " + socket}
	if len(all) != len(wants) {
		t.Fatalf("%+v", all)
	}
	for i, want := range wants {
		if f := all[i]; f.Level != "refuse" || !strings.HasPrefix(f.What, want) || f.Next == "" {
			t.Errorf("%+v, want %q", f, want)
		}
	}
}

func TestExamineLimit(t *testing.T) {
	if f := ExamineLimit(0, config.Config{}); f.What == "" {
		t.Error("no finding about this process")
	}
	if runtime.GOOS != "linux" {
		return
	}
	if f := ExamineLimit(os.Getpid(), config.Config{}); !strings.Contains(f.What, "of process ") {
		t.Errorf("%+v", f)
	}
	if f := ExamineLimit(1<<30, config.Config{}); f.Level != "ok" || !strings.Contains(f.What, "cannot be read") {
		t.Errorf("a process that is not there: %+v", f)
	}
}
