package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/app"
	"relay/relay/bench"
	"relay/relay/client"
)

// benchEvery is how often progress is shown on a terminal.
const benchEvery = 200 * time.Millisecond

func (c *command) bench() *cobra.Command {
	var workloads []string
	var asJSON bool
	var events, endpoints int
	var rate float64
	o := bench.Options{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Relay on this machine, beside the limit of the machine",
		Long: "Starts a Relay of its own with a fresh outbox in a temporary folder, loads it, and receives and verifies what\n" +
			"it delivers. The limit is the same POSTs sent without a Relay, measured in the same round. All of it shares\n" +
			"this machine. Workloads:\n\n" +
			"  single     one event a request, one endpoint\n" +
			"  batch      100 events a request, one endpoint\n" +
			"  fan-out    each event to 10 endpoints\n" +
			"  endpoints  100 endpoints, each event to one of them\n" +
			"  sparse     10,000 endpoints, of which 100 get the events\n" +
			"  backlog    1,000,000 deliveries wait, others go past them; then Relay is killed, starts, and delivers them\n" +
			"  rate       200 events a second for 15 s: how long each is on its way\n\n" +
			"RELAY µs and REDIS µs are CPU time for one delivery, as it would be on a quiet machine.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := pickWorkloads(workloads, events, endpoints, rate)
			if err != nil {
				return err
			}
			o.Workloads = list
			return c.runBench(&o, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&workloads, "workload", []string{"single", "batch", "fan-out", "rate"}, "what to measure; repeatable")
	f.StringVar(&o.Outbox, "outbox", "sqlite", `"sqlite" or "redis", which needs redis-server on this machine`)
	f.StringVar(&o.Level, "durability", "", "of the outbox; default: the engine's")
	f.IntVar(&o.Rounds, "rounds", 3, "of each workload; the table shows medians")
	f.IntVar(&o.Senders, "senders", 64, "requests under way at one time")
	f.IntVar(&o.Size, "size", 1024, "bytes of an event's data")
	f.IntVar(&events, "events", 0, "events of each round; default: each workload's")
	f.IntVar(&endpoints, "endpoints", 0, `endpoints of the workloads "endpoints" and "sparse"; default 100 and 10,000`)
	f.Float64Var(&rate, "rate", 0, `events a second of the workload "rate"; default 200`)
	f.BoolVar(&asJSON, "json", false, "print all rounds as JSON")
	return cmd
}

// pickWorkloads selects workloads by name, and applies the flags to them.
func pickWorkloads(names []string, events, endpoints int, rate float64) ([]bench.Workload, error) {
	all := bench.Workloads()
	var known []string
	for _, w := range all {
		known = append(known, w.Name)
	}
	var picked []bench.Workload
	for _, name := range names {
		i := slices.Index(known, name)
		if i < 0 {
			return nil, usageError{fmt.Errorf("workload %q is not known; use %s", name, strings.Join(known, ", "))}
		}
		w := all[i]
		if rate != 0 && w.Rate > 0 {
			w.Events, w.Rate = max(1, int(float64(w.Events)*rate/w.Rate)), rate // in the same time
		}
		if events != 0 {
			w.Events = events
		}
		if endpoints != 0 && (w.Name == "endpoints" || w.Busy > 0) {
			w.Endpoints, w.Busy = endpoints, min(w.Busy, endpoints)
		}
		if w.Events < 1 || w.Events > 10_000_000 || w.Endpoints < 1 || w.Endpoints > 10_000 || w.Rate < 0 || w.Rate > 100_000 {
			return nil, usageError{errors.New("--events is 1 to 10,000,000, --endpoints 1 to 10,000 and --rate above 0 to 100,000")}
		}
		picked = append(picked, w)
	}
	return picked, nil
}

func (c *command) runBench(o *bench.Options, asJSON bool) error {
	switch {
	case o.Outbox != "sqlite" && o.Outbox != "redis":
		return usageError{fmt.Errorf("outbox %q is not known; use sqlite or redis", o.Outbox)}
	case o.Rounds < 1 || o.Rounds > 100 || o.Senders < 1 || o.Senders > 1000 || o.Size < 64 || o.Size > 128<<10:
		return usageError{errors.New("--rounds is 1 to 100, --senders 1 to 1,000, --size 64 to 131,072")}
	}
	var err error
	if o.Relay, err = os.Executable(); err != nil {
		return fmt.Errorf("find relay: %w", err)
	}
	if o.Outbox == "redis" {
		if o.Redis, err = exec.LookPath("redis-server"); err != nil {
			return errors.New("redis-server is not on this machine's PATH: install it (Debian: apt-get install redis-server), or measure --outbox sqlite")
		}
	}
	o.Progress = c.benchProgress()
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	figures, err := bench.Run(ctx, *o)
	if err != nil {
		return err
	}
	o.Progress("", 0, 0)
	if asJSON {
		return client.JSON(c.out, figures)
	}
	t := client.Table{Header: bench.Header()}
	for i := range figures {
		t.Add(figures[i].Row()...)
	}
	limits := figures[0].Rounds
	fmt.Fprintf(c.out, "limit of the machine: %.0f POSTs/s, %.1f µs of CPU each (first of %d rounds)\n\n", limits[0].Limit.PerSecond, limits[0].Limit.CPU, len(limits))
	if err := t.Align(c.out); err != nil {
		return err
	}
	for i := range figures {
		if text := figures[i].Backlog(); text != "" {
			fmt.Fprintf(c.out, "\n%s\n", text)
		}
	}
	return nil
}

// benchProgress shows progress if the output is a terminal.
func (c *command) benchProgress() func(step string, done, of int) {
	if !app.IsTerminal(c.err) {
		return func(string, int, int) {}
	}
	var last time.Time
	return func(step string, done, of int) {
		if of > 0 && done > 0 && done < of && time.Since(last) < benchEvery {
			return
		}
		last = time.Now()
		fmt.Fprint(c.err, "\r\x1b[K")
		if of > 0 {
			fmt.Fprintf(c.err, "%s  %3d %%", step, 100*done/of)
		}
	}
}
