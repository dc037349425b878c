package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/app"
	"relay/relay/client"
	"relay/relay/doctor"
)

const (
	looksAtOnce = 64              // connections to endpoints
	lookWithin  = 5 * time.Second // for each of them
)

func (c *command) doctor() *cobra.Command {
	var find finding
	var asJSON bool
	within := 30 * time.Second
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that Relay needs, and say what would hurt, with the remedy",
		Long: "Look at everything that Relay needs, and say what would hurt, with the remedy: the file, the outbox and its disk or server, " +
			"permissions, the clock, listeners, upstreams and certificates of fronts, the limit of open files, a running Relay and its backlog, and name, connection and TLS of every endpoint.\n\n" +
			"No event is sent: a connection to each endpoint is opened, with the egress guard and a handshake of TLS, and closed.\n\n" +
			"It needs neither a running Relay nor a good file. The exit code is 1 when something breaks events or deliveries, 0 with warnings only.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if within <= 0 {
				return usageError{errors.New("--within must be positive")}
			}
			if find.address != "" {
				if _, err := client.ParseAddr(find.address); err != nil {
					return usageError{fmt.Errorf("--admin %q %w", find.address, err)}
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), within)
			defer cancel()
			began := time.Now()
			report := doctor.New(c.examine(ctx, find), time.Since(began))
			if asJSON {
				if err := client.JSON(c.out, report); err != nil {
					return err
				}
			} else if err := report.Write(c.out); err != nil {
				return err
			}
			return report.Err()
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&within, "within", within, "how long to look at most")
	return cmd
}

// examine makes all findings, until ctx ends.
func (c *command) examine(ctx context.Context, find finding) []doctor.Finding {
	cfg, p, all := c.examineFile(find.configs)
	running := c.examineRunning(ctx, find, p)
	all = append(all, running.findings...)
	all = append(all, convert(doctor.Process, app.ExamineLimit(running.pid, cfg))...)
	if !running.answers {
		all = append(all, convert(doctor.Listeners, app.ExamineListeners(cfg)...)...)
	}
	all = append(all, examineClock(time.Now())...)

	var outbox, endpoints, fronts []doctor.Finding
	var both sync.WaitGroup
	both.Go(func() { fronts = convert(doctor.Front, app.ExamineFronts(ctx, cfg, running.answers)...) })
	both.Go(func() { outbox = examineOutbox(ctx, cfg) })
	both.Go(func() { endpoints = c.examineEndpoints(ctx, cfg, p, running.endpoints) })
	both.Wait()
	return slices.Concat(all, outbox, fronts, endpoints)
}

// examineFile reads the configuration. Of a broken one it returns what can be read, without a
// policy.
func (c *command) examineFile(flags []string) (config.Config, *policy.Policy, []doctor.Finding) {
	fault := func(text string) doctor.Finding {
		return doctor.Finding{Level: doctor.Breaks, Part: doctor.File, What: text, Next: "mend the file: relay check shows the line"}
	}
	paths, err := config.Find(flags, c.env)
	if err != nil {
		f := fault(err.Error())
		f.Next = "relay serve needs a file: name it with --config, or see Getting started"
		return config.Default(c.env), nil, []doctor.Finding{f}
	}
	var all []doctor.Finding
	file, p, err := c.read(paths)
	if problems, ok := errors.AsType[config.Diagnostics](err); ok {
		for _, problem := range problems {
			all = append(all, fault(problem.String()))
		}
	} else if err != nil {
		all = append(all, fault(err.Error()))
	}
	all = append(all, convert(doctor.File, app.ExamineFiles(paths)...)...)
	if err != nil {
		cfg, _ := config.Partial(paths, c.env) // its error has been told
		return cfg, nil, all
	}
	for _, w := range append(file.Warnings, p.CostlyExamples()...) {
		all = append(all, doctor.Finding{Level: doctor.Warns, Part: doctor.File, What: w})
	}
	if len(all) == 0 {
		all = append(all, doctor.Finding{Level: doctor.Fine, Part: doctor.File, What: fmt.Sprintf("no error; endpoints: %d", len(p.Endpoints))})
	}
	return file.Config, p, all
}

// examineClock finds a clock that cannot be right.
func examineClock(now time.Time) []doctor.Finding {
	const oldest = 2025 // no build of Relay is older
	if now.Year() >= oldest {
		return nil
	}
	return []doctor.Finding{{Level: doctor.Breaks, Part: doctor.Process, What: "this machine's clock says " + now.UTC().Format(time.RFC3339),
		Next: "set the clock: receivers refuse signatures with a wrong time, and certificates seem to be of the future"}}
}

func examineOutbox(ctx context.Context, c config.Config) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	found, err := app.ExamineOutbox(ctx, c)
	all := convert(doctor.Outbox, found...)
	if err != nil {
		all = append(all, doctor.Finding{Level: doctor.Breaks, Part: doctor.Outbox, What: c.Hush(err.Error()), Next: "look at the outbox block, and whether its server runs and can be reached"})
	}
	return all
}

func convert(part string, found ...app.Finding) []doctor.Finding {
	levels := map[string]string{"refuse": doctor.Breaks, "warn": doctor.Warns, "ok": doctor.Fine}
	var all []doctor.Finding
	for _, f := range found {
		all = append(all, doctor.Finding{Level: levels[f.Level], Part: part, What: f.What, Next: f.Next})
	}
	return all
}

// examineEndpoints looks at the endpoints of a good file and at those that a running Relay has beside them, and
// shows on a terminal how far it is.
func (c *command) examineEndpoints(ctx context.Context, cfg config.Config, p *policy.Policy, beside []admin.Endpoint) []doctor.Finding {
	if p == nil {
		return []doctor.Finding{{Level: doctor.Warns, Part: doctor.Endpoint, What: "endpoints are not looked at: the file cannot be read", Next: "mend the file, and look again"}}
	}
	o := doctor.LookOptions{Own: ownAddresses(cfg), AtOnce: looksAtOnce, Within: lookWithin}
	if app.IsTerminal(c.err) {
		o.Progress = func(done, total int) { fmt.Fprintf(c.err, "\rlooked at %d of %d endpoints", done, total) }
		defer io.WriteString(c.err, "\r\x1b[K") // so that nothing of it is left
	}
	made, found := doctor.Made(p.Compiler(), beside)
	return append(found, doctor.Endpoints(ctx, slices.Concat(p.Endpoints, made), o)...)
}

// ownAddresses are the listeners of the file, which no endpoint may point at.
func ownAddresses(c config.Config) []netip.AddrPort {
	var own []netip.AddrPort
	listeners := c.Listeners()
	for _, f := range c.Fronts {
		listeners = slices.Concat(listeners, f.HTTPS, f.HTTP)
	}
	for _, l := range listeners {
		host, port, _ := net.SplitHostPort(l)
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			continue
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if ip, err := netip.ParseAddr(cmp.Or(host, "0.0.0.0")); err == nil {
			own = append(own, netip.AddrPortFrom(ip, uint16(n)))
		}
	}
	return own
}

// examined is what is known of a running Relay.
type examined struct {
	findings  []doctor.Finding
	pid       int  // 0 if unknown
	answers   bool // one holds the listeners
	endpoints []admin.Endpoint
}

// examineRunning asks a running Relay.
func (c *command) examineRunning(ctx context.Context, find finding, p *policy.Policy) (found examined) {
	tell := func(level, what, next string) {
		found.findings = append(found.findings, doctor.Finding{Level: level, Part: doctor.Relay, What: what, Next: next})
	}
	quiet := *c
	quiet.err = io.Discard // the file's problems are findings of their own
	t, err := quiet.admin(find)
	if _, wrong := errors.AsType[usageError](err); wrong {
		return found // the file is not there, as was told
	}
	if err != nil {
		tell(doctor.Warns, "no running Relay was asked: "+err.Error(), "name its admin listener with --admin, or turn one on in the admin block")
		found.answers = true
		return found
	}
	r := doctor.Running{Version: version}
	if p != nil {
		r.OnDisk = p.Hash()
	}
	var list admin.EndpointList
	code, err := ask(ctx, t, "/readyz", &r.Ready)
	if err == nil && r.Ready.Config != nil {
		var health struct{ Version string }
		_, err = ask(ctx, t, "/healthz", &health)
		r.Ready.Version = health.Version
	}
	if err == nil && r.Ready.Config != nil {
		code, err = ask(ctx, t, "/v1/endpoints", &list)
		r.Endpoints = list.Endpoints
	}
	named, _ := c.env("RELAY_ADMIN")
	switch {
	case err != nil && code == 0 && t.PID() == 0 && find.address == "" && named == "":
		tell(doctor.Fine, "no Relay runs with this file", "")
		return found
	case err != nil && code == 0:
		tell(doctor.Breaks, err.Error(), "see the log of the Relay that should answer there")
	case err != nil:
		tell(doctor.Warns, err.Error(), "see the log of the Relay that answers there")
	case r.Ready.Config == nil:
		tell(doctor.Warns, "a Relay runs (ready: "+strconv.FormatBool(code == http.StatusOK)+"), and says no more without a token that may read the whole", "give its token with $RELAY_ADMIN_TOKEN")
	default:
		found.findings, found.endpoints = r.Judge(), r.Endpoints
	}
	found.pid, found.answers = t.PID(), true
	return found
}

// ask reads a JSON answer of a running Relay; the status is 0 if there is none.
func ask(ctx context.Context, t client.Target, path string, to any) (status int, err error) {
	type answer struct {
		status int
		body   []byte
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		a.status, a.body, a.err = t.Do(client.Request{Method: http.MethodGet, Path: path})
		got <- a
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return 0, a.err
		}
		if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
			return a.status, t.AdminRefusal(a.status, a.body)
		}
		return a.status, json.Unmarshal(a.body, to)
	case <-ctx.Done():
		return 0, fmt.Errorf("the Relay on %s does not answer", t)
	}
}
