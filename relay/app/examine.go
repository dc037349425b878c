package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"relay/config"
	"relay/internal/access"
	"relay/outbox/redisstream"
	"relay/outbox/sqlite"
)

// ExamineOutbox is ProbeOutbox, and also looks at what the outbox holds: its format, how full it
// is, the disk or the server's memory, modes and owners, and the clock.
func ExamineOutbox(ctx context.Context, whole config.Config) ([]Finding, error) {
	c := whole.Outbox
	var all []Finding
	if c.Engine == "redis" {
		found, err := redisstream.Examine(ctx, redisOptions(c))
		for _, f := range found.List {
			all = append(all, Finding{f.Level, f.What, f.Next})
		}
		if err != nil {
			err = fmt.Errorf("look at %s: %w", whole.Show("outbox.server", c.Redis.Where()), err)
		}
		return hush(whole, all), err
	}
	all = append(all, probeFolder(c.Path))
	if all[0].Level != "refuse" {
		dir, err := filepath.Abs(c.Path)
		if err != nil {
			return hush(whole, all), err
		}
		for _, f := range sqlite.Probe(sqlite.Options{Dir: dir, MaxSize: c.MaxSize}) {
			all = append(all, Finding(f))
		}
	}
	return hush(whole, all), nil
}

// ExamineListeners says which listeners of the file a start could not open. No Relay with this
// file may be running: it has them open.
func ExamineListeners(c config.Config) []Finding {
	var all []Finding
	try := func(what, addr string) {
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			ln.Close()
			return
		}
		all = append(all, Finding{"refuse", fmt.Sprintf("%s cannot listen on %s: %v", what, addr, err),
			"stop what has the address (ss -ltnp), or choose another one"})
	}
	for _, h := range c.Ingest.HTTP {
		try("ingest", h.Addr)
	}
	if c.Admin.HTTP != "" {
		try("admin", c.Admin.HTTP)
	}
	var fronts []string // which share addresses
	for _, f := range c.Fronts {
		fronts = slices.Concat(fronts, f.HTTPS, f.HTTP)
	}
	slices.Sort(fronts)
	for _, addr := range slices.Compact(fronts) {
		try("front", addr)
	}
	for _, u := range c.Ingest.Unix {
		all = append(all, examineSocket("ingest", u.Path)...)
	}
	if c.Admin.Unix != "" {
		all = append(all, examineSocket("admin", c.Admin.Unix)...)
	}
	return hush(c, all)
}

// examineSocket looks at the folder of a socket, which a start makes, and at who answers there.
func examineSocket(what, path string) []Finding {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return []Finding{{"refuse", fmt.Sprintf("%s cannot listen on %s: another program answers there", what, path), "stop it, or choose another path"}}
	}
	folder := probeFolder(filepath.Dir(path))
	if folder.Level != "refuse" {
		return nil
	}
	return []Finding{{"refuse", fmt.Sprintf("%s cannot make its socket %s: %s", what, path, folder.What), "use a folder that the user that runs relay can write"}}
}

// ExamineFiles looks at the files of the configuration: who else can change them.
func ExamineFiles(paths []string) []Finding {
	var all []Finding
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				all = append(all, Finding{"refuse", fmt.Sprintf("%s cannot be read: %v", path, access.Explain(err, filepath.Dir(path))), "let the user that runs relay read it"})
			}
			continue
		}
		if mode := access.Of(info).Mode; mode&0o002 != 0 {
			all = append(all, Finding{"warn", fmt.Sprintf("%s has mode %04o: any user can change where events go", path, mode), "chmod o-w " + path})
		}
	}
	return all
}

// ExamineLimit judges the limit of open files of a process, this one's where pid is 0.
func ExamineLimit(pid int, c config.Config) Finding {
	limit, whose := limitOfFiles(), "this shell"
	if pid != 0 {
		n, err := limitOf(pid)
		if err != nil {
			return Finding{"ok", fmt.Sprintf("the limit of open files of process %d cannot be read; %s has %d", pid, whose, limit), ""}
		}
		limit, whose = n, fmt.Sprintf("process %d", pid)
	}
	s := shareFiles(limit, c)
	if limit < fewFiles {
		return Finding{"warn", fmt.Sprintf("the limit of open files of %s is %d: each listener of ingest takes at most %d connections at a time, and %d to receivers may be open", whose, limit, s.ingest, s.outgoing),
			"raise it: ulimit -n, LimitNOFILE=, --ulimit nofile="}
	}
	return Finding{"ok", fmt.Sprintf("the limit of open files of %s is %d: up to %d connections to receivers", whose, limit, s.outgoing), ""}
}

// limitOf reads the limit of another process: see proc_pid_limits(5).
func limitOf(pid int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max open files"); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				break
			}
			n, err := strconv.Atoi(fields[0])
			return n, err
		}
	}
	return 0, errors.New("no such line")
}
