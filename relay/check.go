package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/app"
	"relay/relay/client"
)

// load reads the files that the flags (or else the search order) name. Warnings
// go to standard error.
func (c *command) load(flags []string) (*config.File, *policy.Policy, error) {
	paths, err := config.Find(flags, c.env)
	if err != nil {
		return nil, nil, usageError{err}
	}
	file, p, err := c.read(paths)
	if err != nil {
		return nil, nil, c.diagnose(err)
	}
	for _, w := range file.Warnings {
		fmt.Fprintf(c.err, "relay: warning: %s\n", w)
	}
	return file, p, nil
}

// read is load for known files. With an error it also returns a File, which then only lists the
// files that were read.
func (c *command) read(paths []string) (*config.File, *policy.Policy, error) {
	file, err := config.Load(paths, c.env)
	if err != nil && !file.Decodable() {
		return file, nil, err
	}
	p, all := policy.Decode(file) // with the problems of Load
	if all == nil {
		all = err
	}
	return file, p, all
}

// diagnose prints diagnostics with their lines, and returns the error for the last line.
func (c *command) diagnose(err error) error {
	d, ok := errors.AsType[config.Diagnostics](err)
	if !ok {
		return err
	}
	fmt.Fprint(c.err, d.Pretty())
	return errors.New("the configuration has errors")
}

func configFlag(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVarP(to, "config", "c", nil, "a `file` or folder of *.hcl files (repeatable); else $RELAY_CONFIG, ./relay.hcl, /etc/relay/relay.hcl")
}

func (c *command) check() *cobra.Command {
	var configs []string
	var asJSON, connect bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration and say what it means",
		Args:  argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, p, err := c.load(append(configs, args...))
			if err != nil {
				return err
			}
			for _, cost := range p.CostlyExamples() {
				fmt.Fprintf(c.err, "relay: warning: %s; a machine that is very busy may not manage it\n", cost)
			}
			var found []app.Finding
			if connect {
				found = probeOutbox(file.Config)
			}
			if err := c.printChecked(file, p, found, asJSON); err != nil {
				return err
			}
			for _, f := range found {
				if f.Level == "refuse" {
					return errors.New("the outbox cannot be used: see above")
				}
			}
			return nil
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().BoolVar(&connect, "connect", false, "look at the outbox too: connect to its server, or try its folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// connectPatience bounds all calls to the outbox's server.
const connectPatience = 15 * time.Second

// probeOutbox checks the outbox. An unreachable one is an error, too.
func probeOutbox(c config.Config) []app.Finding {
	ctx, cancel := context.WithTimeout(context.Background(), connectPatience)
	defer cancel()
	found, err := app.ProbeOutbox(ctx, c)
	if err != nil {
		return []app.Finding{{Level: "refuse", What: c.Hush(err.Error())}}
	}
	return found
}

// checked is the output of `relay check` for a valid configuration.
type checked struct {
	Files      []string          `json:"files"`
	Outbox     string            `json:"outbox"`
	Durability string            `json:"durability"`
	Path       string            `json:"path,omitempty"`      // of sqlite
	Redis      string            `json:"redis,omitempty"`     // its place, without passwords
	Namespace  string            `json:"namespace,omitempty"` // of redis
	Spool      string            `json:"spool,omitempty"`     // of redis
	Ingest     []string          `json:"ingest"`
	Admin      []string          `json:"admin"`
	Fronts     []checkedFront    `json:"fronts,omitempty"`
	Endpoints  []checkedEndpoint `json:"endpoints"`
	Connect    []app.Finding     `json:"connect,omitempty"` // with --connect
}

type checkedFront struct {
	Host         string   `json:"host"`
	Listens      []string `json:"listens"`
	Upstream     string   `json:"upstream,omitempty"`
	Serve        []string `json:"serve,omitempty"`
	Certificates string   `json:"certificates,omitempty"` // "acme" or "files"
}

// checkedFronts are the fronts of a file.
func checkedFronts(cfg config.Config) []checkedFront {
	var all []checkedFront
	for _, f := range cfg.Fronts {
		out := checkedFront{Host: f.Host, Listens: []string{}, Upstream: cfg.Show("front.upstream", f.Upstream.String()), Serve: f.Serve}
		for _, addr := range f.HTTPS {
			out.Listens = append(out.Listens, "https://"+cfg.Show("front.http", addr))
			out.Certificates = "files"
		}
		if f.ByACME() {
			out.Certificates = "acme"
		}
		for _, addr := range f.HTTP {
			out.Listens = append(out.Listens, "http://"+cfg.Show("front.http", addr))
		}
		all = append(all, out)
	}
	return all
}

// sentence says what a front does.
func (f checkedFront) sentence() string {
	to := append([]string{}, f.Serve...)
	if f.Upstream != "" {
		to = append(to, f.Upstream)
	}
	text := fmt.Sprintf("front %s at %s to %s", f.Host, strings.Join(f.Listens, ", "), cmp.Or(strings.Join(to, ", "), "its paths"))
	if f.Certificates != "" {
		text += ", certificates from " + f.Certificates
	}
	return text
}

type checkedEndpoint struct {
	Name     string `json:"name"`
	URL      string `json:"url"` // without its query, which may hold a credential
	Enabled  bool   `json:"enabled"`
	Events   string `json:"events"`
	Timeout  string `json:"timeout"`
	Attempts int    `json:"attempts"`
	LastsMS  int64  `json:"lasts_ms"` // from the first attempt to the last, without jitter and waiting for answers
}

func (c *command) printChecked(file *config.File, p *policy.Policy, found []app.Finding, asJSON bool) error {
	cfg := file.Config
	out := checked{
		Files: file.Paths, Outbox: cfg.Outbox.Engine, Durability: cfg.Show("outbox.durability", cfg.Outbox.Durability), Path: cfg.Show("outbox.path", cfg.Outbox.Path),
		Redis: cfg.Show("outbox.server", cfg.Outbox.Redis.Where()), Namespace: cfg.Show("outbox.namespace", cfg.Outbox.Redis.Namespace),
		Spool:  cfg.Show("outbox.spool", cfg.Outbox.Redis.Spool),
		Ingest: []string{}, Admin: []string{}, Fronts: checkedFronts(cfg), Endpoints: []checkedEndpoint{}, Connect: found,
	}
	for _, u := range cfg.Ingest.Unix {
		out.Ingest = append(out.Ingest, "unix:"+u.Path)
	}
	for _, h := range cfg.Ingest.HTTP {
		out.Ingest = append(out.Ingest, "http://"+h.Addr)
	}
	if cfg.Admin.Unix != "" {
		out.Admin = append(out.Admin, "unix:"+cfg.Show("admin.unix", cfg.Admin.Unix))
	}
	if cfg.Admin.HTTP != "" {
		out.Admin = append(out.Admin, "http://"+cfg.Show("admin.http", cfg.Admin.HTTP))
	}
	for _, e := range p.Endpoints {
		due := append([]time.Duration{0}, e.Shown().Retry.Due()...)
		url := e.ShownURL()
		url.RawQuery = ""
		out.Endpoints = append(out.Endpoints, checkedEndpoint{
			Name: e.Name, URL: url.String(), Enabled: e.Enabled,
			Events: e.Show("events", e.Events.String()), Timeout: e.Show("timeout.total", e.Timeout.Total.String()),
			Attempts: len(due), LastsMS: due[len(due)-1].Milliseconds(),
		})
	}
	if asJSON {
		return client.JSON(c.out, out)
	}

	fmt.Fprintf(c.out, "ok: %s\n", strings.Join(out.Files, ", "))
	fmt.Fprintf(c.out, "events come in at %s\n", strings.Join(out.Ingest, ", "))
	if out.Outbox == "redis" {
		fmt.Fprintf(c.out, "outbox %s (%s) at %s, namespace %s\n", out.Outbox, out.Durability, out.Redis, out.Namespace)
		if out.Spool != "" {
			fmt.Fprintf(c.out, "  while it is away, events go into the spool in %s\n", out.Spool)
		}
	} else {
		fmt.Fprintf(c.out, "outbox %s (%s) in %s\n", out.Outbox, out.Durability, out.Path)
	}
	for _, f := range out.Fronts {
		fmt.Fprintln(c.out, f.sentence())
	}
	for _, f := range found {
		fmt.Fprintf(c.out, "  %s: %s\n", f.Level, f.What)
		if f.Next != "" {
			fmt.Fprintf(c.out, "    next: %s\n", f.Next)
		}
	}
	fmt.Fprintln(c.out)
	table := client.Table{Header: []string{"ENDPOINT", "URL", "EVENTS", "ATTEMPTS", "LASTING"}}
	for _, e := range out.Endpoints {
		lasting := (time.Duration(e.LastsMS) * time.Millisecond).String()
		if !e.Enabled {
			lasting += " (disabled: its deliveries are held)"
		}
		table.Add(e.Name, e.URL, e.Events, strconv.Itoa(e.Attempts), lasting)
	}
	return table.Align(c.out)
}
