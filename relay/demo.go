package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/app"
	"relay/relay/client"
	"relay/relay/sink"
)

// demoConfig is a file as a user would write it; the demo has no other settings.
const demoConfig = `# The whole configuration of this demo. "relay check FILE" explains it.
ingest {
  unix %[1]q {}
}
admin {
  http = ""
}
outbox "sqlite" {
  path = %[2]q
}
log {
  level = "error"
}

policy "default" {
  retry {
    schedule = ["1s", "2s", "3s", "5s", "8s"]
  }
  egress {                           # the receiver of the demo is on this machine
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}

endpoint "healthy" {
  url     = "http://%[3]s/healthy"
  secrets = [%[4]q]
}

endpoint "flaky" {                   # fails at first, then recovers
  url     = "http://%[3]s/flaky"
  events  = ["order.*"]
  secrets = [%[4]q]
}
`

// demoFlaky is what the flaky endpoint answers.
const demoFlaky = "503x3,reset,503x4,200"

func (c *command) demo() *cobra.Command {
	var d demo
	var page bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: an app, Relay and a receiver in one process",
		Long: "Runs an app that says something twice a second, Relay with its embedded outbox in a temporary\n" +
			"folder, and a receiver that checks every signature. One of the two endpoints is down at first.\n" +
			"With --kill, Relay runs as a process of its own, is killed with -9 half-way and started again.\n\n" +
			"With --page it tells the story of a shop until Ctrl-C, with receivers that are slow, refuse, fail\n" +
			"and recover, and prints links to the page of its Relay. The operator's link logs in once; the next\n" +
			"one is printed when it is used.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.command = c
			switch {
			case d.length < 0:
				return usageError{errors.New("--for cannot be negative")}
			case page && d.kill:
				return usageError{errors.New("--page and --kill exclude each other")}
			case page:
				p := pageDemo{command: c}
				if cmd.Flags().Changed("for") {
					p.length = d.length
				}
				return p.run()
			}
			return d.run()
		},
	}
	cmd.Flags().DurationVar(&d.length, "for", 20*time.Second, "how long it runs; 0 = until Ctrl-C, as with --page")
	cmd.Flags().BoolVar(&page, "page", false, "run until Ctrl-C, and show the page of its Relay")
	cmd.Flags().BoolVar(&d.kill, "kill", false, "run Relay as its own process and kill it with -9 half-way")
	return cmd
}

// demo is one run of the verb.
type demo struct {
	*command
	length time.Duration
	kill   bool

	dir, file, socket string
	sink              *sink.Sink
}

func (d *demo) run() (err error) {
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	if d.dir, err = os.MkdirTemp("", "relay-demo-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	stopSink, err := d.startSink(ctx)
	if err != nil {
		return err
	}
	defer stopSink()
	cfg, p, err := d.load([]string{d.file})
	if err != nil {
		return err
	}
	d.introduce()

	// Relay runs a little longer than the app, so that the last events arrive while it runs.
	saying := ctx
	if d.length > 0 {
		var stop context.CancelFunc
		saying, stop = context.WithTimeout(ctx, d.length*3/4)
		defer stop()
		ctx, stop = context.WithTimeout(ctx, d.length)
		defer stop()
	}
	var app sync.WaitGroup
	app.Go(func() { d.say(saying) })
	if d.kill {
		err = d.asProcess(ctx)
	} else {
		err = d.inProcess(ctx, cfg.Config, p)
	}
	app.Wait()
	if err != nil {
		return err
	}
	return d.summarise(cfg.Config)
}

// startSink opens the receiver and writes the configuration that points at it.
func (d *demo) startSink(ctx context.Context) (stop func(), err error) {
	secret := randomSecret()
	verifier, err := sign.NewVerifier(sign.Standard(), []string{secret})
	if err != nil {
		return nil, fmt.Errorf("make verifier: %w", err)
	}
	flaky, err := sink.ParseScript(demoFlaky)
	if err != nil {
		return nil, err
	}
	d.sink = sink.New(sink.Options{
		Verifiers: []*sign.Verifier{verifier},
		Scripts:   map[string]sink.Script{"/flaky": flaky},
		Observe:   sink.NewPrinter(d.out, sink.PrintOptions{Color: app.IsTerminal(d.out)}),
	})
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}

	d.file = filepath.Join(d.dir, "relay.hcl")
	d.socket = filepath.Join(d.dir, "relay.sock")
	text := fmt.Sprintf(demoConfig, d.socket, filepath.Join(d.dir, "outbox"), ln.Addr(), secret)
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("write configuration: %w", err)
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := sink.Serve(ctx, ln, d.sink); err != nil {
			fmt.Fprintf(d.err, "relay: %v\n", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}

// randomSecret makes a secret of the scheme "standard".
func randomSecret() string {
	key := make([]byte, 32)
	rand.Read(key)
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

func (d *demo) introduce() {
	how := "in this process"
	if d.kill {
		how = "as a process of its own, to be killed half-way"
	}
	fmt.Fprintf(d.out, `An app says something twice a second; Relay (%s) stores it, signs it, delivers it.
Each line below is one attempt, seen by the receiver. The endpoint "flaky" is down at first.

  configuration  %s
  your own event, from another terminal:
    curl --unix-socket %s http://localhost/v1/events \
      -H 'Content-Type: application/json' -d '{"type":"order.created","data":{"by":"me"}}'

`, how, d.file, d.socket)
}

// inProcess runs Relay here until ctx ends.
func (d *demo) inProcess(ctx context.Context, cfg config.Config, p *policy.Policy) error {
	lines := app.NewLines(d.err)
	defer lines.Flush(lastLines)
	a, err := app.Open(ctx, app.Options{
		Config: cfg, Policy: p, Version: version, Grace: time.Second,
		Log: app.NewLogger(cfg.Log, lines), LogDropped: lines.Dropped,
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// asProcess runs Relay as a child, kills it half-way and starts it again on the
// same folder.
func (d *demo) asProcess(ctx context.Context) error {
	relay, err := d.start()
	if err != nil {
		return err
	}
	half := cmp.Or(d.length, 20*time.Second) * 3 / 8
	if wait(ctx, half) {
		if err := relay.Process.Kill(); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
		_ = relay.Wait() // the error says that it was killed
		fmt.Fprintf(d.out, "-- Relay (process %d) was killed with -9; the app goes on and repeats what was not answered\n", relay.Process.Pid)
		wait(ctx, time.Second)
		if relay, err = d.start(); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "-- Relay was started again (process %d)\n", relay.Process.Pid)
		<-ctx.Done()
	}
	if err := relay.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop relay: %w", err)
	}
	err = relay.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); ended && relay.ProcessState.ExitCode() < 0 {
		return nil // it got the signal before it listened for signals, which does not harm its outbox
	}
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

func (d *demo) start() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find relay: %w", err)
	}
	cmd := exec.Command(self, "serve", "--config", d.file, "--grace", "1s")
	cmd.Stderr = d.err
	cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+d.dir) // no verb must take it for the user's Relay
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start relay: %w", err)
	}
	return cmd, nil
}

// say is the app: an event every half second, each repeated with its id until
// Relay has answered 202.
func (d *demo) say(ctx context.Context) {
	types := []string{"order.created", "order.paid", "invoice.sent"}
	to := client.At("unix", d.socket)
	for n := 1; ; n++ {
		body, _ := json.Marshal(map[string]any{
			"id":   fmt.Sprintf("demo-%d", n),
			"type": types[n%len(types)],
			"data": map[string]any{"order": 1000 + n, "amount": 10 * n},
		})
		for !d.hand(to, body) {
			if !wait(ctx, 100*time.Millisecond) {
				return
			}
		}
		if !wait(ctx, 500*time.Millisecond) {
			return
		}
	}
}

// hand posts one event and tells whether it was accepted.
func (d *demo) hand(to client.Target, body []byte) bool {
	code, _, err := to.Do(client.Request{Method: http.MethodPost, Path: "/v1/events", Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
	return err == nil && code == http.StatusAccepted
}

// summarise compares what the outbox knows with what the receiver saw.
func (d *demo) summarise(cfg config.Config) error {
	counts, err := app.Counts(context.Background(), cfg)
	if err != nil {
		return err
	}
	t := d.sink.Totals()
	other := "; or this demo with --kill"
	if d.kill {
		other = ""
	}
	fmt.Fprintf(d.out, `
%d deliveries accepted: %d delivered, %d wait for their next attempt, %d failed for good
%d attempts seen by the receiver, %d not answered 200; %d duplicates
%d signatures checked: %d good, %d bad

Next: a file of your own (see relay.hcl.example) and "relay serve"%s
`, counts.Accepted, counts.Delivered, counts.Pending, counts.Failed+counts.Discarded,
		t.Received, t.Received-t.Answers["200"], t.Duplicates,
		t.Verified+t.Bad, t.Verified, t.Bad, other)
	return nil
}

// wait returns true after d, and false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
