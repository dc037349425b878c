package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	logLines     = 8 // of the end of a log, in an error
)

// processes are the Relay of a round, and its Redis.
type processes struct {
	folder string // of the configuration
	outbox string // its block
	socket string
	log    string // file
	relay  *process
	redis  *process // nil for an embedded outbox
	server string   // Unix socket of Redis
}

// process is a child that logs into a file.
type process struct {
	*exec.Cmd
	ended chan struct{} // closed when it has
}

// start writes a configuration and starts the processes.
func (o *Options) start(ctx context.Context, dir string, w Workload, r *receiver) (_ *processes, err error) {
	p := &processes{folder: filepath.Join(dir, "conf"), socket: filepath.Join(dir, "relay.sock"), log: filepath.Join(dir, "relay.log")}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	p.outbox = fmt.Sprintf("outbox \"sqlite\" {\n  path = %q\n%s}\n", filepath.Join(dir, "outbox"), o.level())
	if o.Outbox == "redis" {
		p.server = filepath.Join(dir, "redis.sock")
		if p.redis, err = startProcess(filepath.Join(dir, "redis.log"), o.Redis, "redis-server", "--port", "0", "--unixsocket", p.server,
			"--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", o.appendFsync(), "--maxmemory-policy", "noeviction"); err != nil {
			return nil, fmt.Errorf("start redis-server: %w", err)
		}
		if err := p.redis.listens(ctx, p.server); err != nil {
			return nil, fmt.Errorf("redis-server: %w", err)
		}
		p.outbox = fmt.Sprintf("outbox \"redis\" {\n  url = %q\n%s}\n", "unix://"+p.server, o.level())
	}
	if err := p.startRelay(ctx, o.Relay, configuration(p.socket, w, r, w.Held)); err != nil {
		return nil, err
	}
	return p, nil
}

// startRelay starts a Relay with a configuration, and returns when it takes events.
func (p *processes) startRelay(ctx context.Context, path string, files []string) (err error) {
	if err := os.MkdirAll(p.folder, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for i, text := range append([]string{p.outbox}, files...) {
		if err := os.WriteFile(filepath.Join(p.folder, fmt.Sprintf("%d.hcl", i)), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	if p.relay, err = startProcess(p.log, path, "relay", "serve", "--config", p.folder, "--watch=false"); err != nil {
		return fmt.Errorf("start relay: %w", err)
	}
	if err := p.relay.listens(ctx, p.socket); err != nil {
		return p.blame(err)
	}
	return nil
}

// kill ends the Relay as a crash would.
func (p *processes) kill() {
	_ = p.relay.Process.Kill() // it may have ended
	<-p.relay.ended
}

// level is the line of the durability, "" for the engine's default.
func (o *Options) level() string {
	if o.Level == "" {
		return ""
	}
	return fmt.Sprintf("  durability = %q\n", o.Level)
}

// appendFsync is the setting of Redis that the durability needs.
func (o *Options) appendFsync() string {
	if o.Level == "fsync" {
		return "always"
	}
	return "everysec"
}

// fileEndpoints is how many endpoints a file has: one of 10,000 would be too large.
const fileEndpoints = 1000

// configuration is the files without the outbox: endpoints in groups of Fan, each of which gets
// the events of one type. With hold the first one is disabled.
func configuration(socket string, w Workload, r *receiver, hold bool) (files []string) {
	var b strings.Builder
	fmt.Fprintf(&b, `
ingest {
  unix %q {}
}
admin {
  http = ""
}
log {
  level  = "warn"
  format = "json"
}
policy "default" {
  concurrency = 64
  egress {
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}
`, socket)
	for i := range w.Endpoints {
		if i%fileEndpoints == 0 {
			files = append(files, b.String())
			b.Reset()
		}
		fmt.Fprintf(&b, "endpoint \"e%d\" {\n  enabled = %t\n  url     = \"http://%s/e%d\"\n  events  = [\"bench.%d\"]\n  secrets = [%q]\n}\n",
			i, i > 0 || !hold, r.addr(), i, i/w.Fan, r.secret())
	}
	return append(files, b.String())
}

// startProcess starts a program under a name, args[0], and logs into a file.
func startProcess(log, path string, args ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the child has its own
	p := &process{&exec.Cmd{Path: path, Args: args}, make(chan struct{})}
	p.Stdout, p.Stderr = f, f
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.Wait() // its exit code is in ProcessState
		close(p.ended)
	}()
	return p, nil
}

// listens waits until the process listens on a Unix socket.
func (p *process) listens(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it does not listen after %v", startTimeout))
	defer cancel()
	ctx, dead := context.WithCancelCause(ctx)
	defer dead(nil)
	go func() {
		select {
		case <-p.ended:
			dead(fmt.Errorf("it has ended: %s", p.ProcessState))
		case <-ctx.Done():
		}
	}()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		if !wait(ctx, 10*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// blame adds what Relay logged last to an error of its run.
func (p *processes) blame(err error) error {
	text, readErr := os.ReadFile(p.log)
	if readErr != nil || len(text) == 0 {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%w; relay's log ends with:\n%s", err, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
}

// stop ends the processes, and waits for them.
func (p *processes) stop() {
	for _, child := range []*process{p.relay, p.redis} {
		if child == nil {
			continue
		}
		late := time.AfterFunc(stopTimeout, func() { _ = child.Process.Kill() })
		_ = child.Process.Signal(syscall.SIGINT) // it may have ended: Ctrl-C reaches children, too
		<-child.ended
		late.Stop()
	}
}

// usage is what the processes have used since they started.
type usage struct {
	relay, redis time.Duration // of CPU
	rss, now     int64         // memory of Relay, the most so far and at present, in bytes
	redisNow     int64         // of Redis at present
}

func (p *processes) usage() (u usage, err error) {
	if u.relay, u.rss, err = processUsage(p.relay.Process.Pid); err != nil {
		return usage{}, fmt.Errorf("read the CPU time of relay: %w", err)
	}
	if u.now, err = processMemory(p.relay.Process.Pid, "VmRSS:"); err != nil {
		return usage{}, fmt.Errorf("read the memory of relay: %w", err)
	}
	if p.redis != nil {
		if u.redis, _, err = processUsage(p.redis.Process.Pid); err != nil {
			return usage{}, fmt.Errorf("read the CPU time of redis-server: %w", err)
		}
		if u.redisNow, err = processMemory(p.redis.Process.Pid, "VmRSS:"); err != nil {
			return usage{}, fmt.Errorf("read the memory of redis-server: %w", err)
		}
	}
	return u, nil
}

// rewriteTimeout is for the rewrite of an append-only file of some gigabytes.
const rewriteTimeout = 5 * time.Minute

// awaitRewrite returns when Redis does not rewrite its append-only file: a process of its own
// does that at times, and takes one CPU. Without Redis it returns at once.
func (p *processes) awaitRewrite(ctx context.Context) error {
	if p.redis == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rewriteTimeout, fmt.Errorf("redis-server has rewritten its append-only file for %v", rewriteTimeout))
	defer cancel()
	for {
		info, err := p.persistence(ctx)
		if err != nil {
			return fmt.Errorf("ask redis-server about its append-only file: %w", err)
		}
		if strings.Contains(info, "aof_rewrite_in_progress:0\r\n") && strings.Contains(info, "aof_rewrite_scheduled:0\r\n") {
			return nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// persistence is a section of Redis' INFO.
func (p *processes) persistence(ctx context.Context) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", p.server)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("INFO persistence\r\nQUIT\r\n")); err != nil {
		return "", err
	}
	info, err := io.ReadAll(conn) // until it has quit
	return string(info), err
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
