package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/query"
)

// action is a verb that changes one delivery or event, or all of a filter.
type action struct {
	verb, short, long, example string
	does                       string // for the question: "send the events of %s deliveries again"

	one  func(t client.Target, id string, o bulkOptions) (answer []byte, text string, err error)
	path string // of the job's route

	to, force bool // it has this flag
}

// bulkOptions are the flags beside the filter.
type bulkOptions struct {
	asking
	to          string
	rate        string
	force       bool
	dryRun, yes bool
	detach      bool
}

func (c *command) action(a action) *cobra.Command {
	var o bulkOptions
	cmd := &cobra.Command{
		Use:   a.verb + " [ID]",
		Short: a.short,
		Long: a.short + ".\n\n" + a.long + "\n\n" +
			"With a filter a job of the running Relay does it, which survives restarts. On a terminal it asks before,\n" +
			"with the number of deliveries; elsewhere --yes is needed. Ctrl-C leaves the job running: relay jobs shows\n" +
			"it, relay jobs cancel ends it. Exit code 1: the job failed or was cancelled, or Ctrl-C.",
		Example: a.example,
		Args:    argRange(0, 1),
	}
	f := filterFlags(cmd, query.Bulk)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if filtered, err := f.query(); err != nil || len(filtered) > 0 || o.rate != "" || o.dryRun {
				return usageError{errors.New("an ID goes with no filter, --rate or --dry-run")}
			}
			return c.changeOne(&a, args[0], o)
		}
		return c.changeAll(&a, f, o)
	}
	askFlags(cmd, &o.asking)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only count what the filter matches")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.detach, "detach", false, "do not wait for the end of the job")
	cmd.Flags().StringVar(&o.rate, "rate", "", "deliveries per `second`, at most: 0.01 to 100000")
	if a.to {
		cmd.Flags().StringVar(&o.to, "to", "", "`endpoint` that gets the events, instead of that of each delivery")
	}
	if a.force {
		cmd.Flags().BoolVar(&o.force, "force", false, "although deliveries are pending, which are discarded")
	}
	c.completing(cmd, "endpoint", f.use)
	if a.to {
		c.completing(cmd, "to", 0)
	}
	return cmd
}

func (c *command) changeOne(a *action, id string, o bulkOptions) error {
	if id == "" {
		return usageError{errors.New("the ID is empty")}
	}
	t, err := c.admin(o.finding)
	if err != nil {
		return err
	}
	answer, text, err := a.one(t, id, o)
	switch {
	case err != nil:
		return err
	case o.json:
		return client.JSON(c.out, json.RawMessage(answer))
	}
	_, err = io.WriteString(c.out, text)
	return err
}

// body is the body of a job's route.
func (o *bulkOptions) body(f *filter) (map[string]any, error) {
	filter, err := f.query()
	if err != nil {
		return nil, err
	}
	body := map[string]any{}
	for name, values := range filter {
		if body[name] = values; len(values) == 1 {
			body[name] = values[0]
		}
	}
	if o.rate != "" {
		rate, err := strconv.ParseFloat(o.rate, 64)
		if err != nil || rate-rate != 0 {
			return nil, usageError{fmt.Errorf("--rate %q is no number of deliveries per second", o.rate)}
		}
		body["rate"] = rate
	}
	if o.to != "" {
		body["to"] = o.to
	}
	if o.force {
		body["force"] = true
	}
	return body, nil
}

// changeAll counts, asks, starts the job and follows it.
func (c *command) changeAll(a *action, f *filter, o bulkOptions) error {
	body, err := o.body(f)
	if err != nil {
		return err
	}
	t, err := c.admin(o.finding)
	if err != nil {
		return err
	}
	body["dry_run"] = true
	var count admin.BulkAnswer
	text, err := question{method: http.MethodPost, path: a.path}.ask(t, body, &count)
	if err != nil {
		return err
	}
	fmt.Fprint(c.err, warned(count.Warning))
	if o.dryRun {
		if o.json {
			return client.JSON(c.out, text)
		}
		_, err = fmt.Fprintf(c.out, "%s%s; nothing was done\n", matchOf(&count.Matched), resentOf(&count))
		return err
	}
	if !o.yes {
		if err := c.confirm(fmt.Sprintf("This would "+a.does+".", deliveriesOf(&count.Matched)+resentOf(&count))); err != nil {
			return err
		}
	}
	delete(body, "dry_run")
	var started admin.BulkAnswer
	if text, err = (question{method: http.MethodPost, path: a.path}).ask(t, body, &started); err != nil {
		return err
	}
	if o.detach {
		if o.json {
			return client.JSON(c.out, text)
		}
		_, err = fmt.Fprintf(c.out, "job %s: %s; follow it: relay jobs --follow %[1]s\n", started.ID, matchOf(&started.Matched)+resentOf(&started))
		return err
	}
	return c.follow(t, started.ID, o.json)
}

// followEvery is how often a job that is followed is asked for.
const followEvery = 200 * time.Millisecond

// follow shows the progress of a job until it ends. An interrupt leaves it running.
func (c *command) follow(t client.Target, id string, asJSON bool) error {
	ctx, cancel := untilSignal(func(os.Signal) error {
		return fmt.Errorf("the job goes on: relay jobs %s shows it, relay jobs cancel %[1]s ends it", id)
	}, nil)
	defer cancel()
	bar := progress{to: c.err, terminal: isTerminal(c.err), began: time.Now()}
	bar.begin(id)
	for {
		var job admin.Job
		text, err := question{method: http.MethodGet, path: "/v1/jobs/" + id}.ask(t, nil, &job)
		if err != nil {
			return fmt.Errorf("the job may go on; relay jobs %s shows it: %w", id, err)
		}
		bar.show(&job)
		if !job.Ended.IsZero() {
			bar.end()
			return c.jobEnded(&job, text, asJSON)
		}
		if !wait(ctx, followEvery) {
			bar.end()
			return context.Cause(ctx)
		}
	}
}

func (c *command) jobEnded(job *admin.Job, text []byte, asJSON bool) error {
	if asJSON {
		if err := client.JSON(c.out, json.RawMessage(text)); err != nil {
			return err
		}
	} else if err := printJobs(c.output(), []admin.Job{*job}); err != nil {
		return err
	}
	switch job.State {
	case "done":
		return nil
	case "cancelled":
		return fmt.Errorf("the job was cancelled by %s; what it changed stays", job.CancelledBy)
	}
	return fmt.Errorf("the job %s: %s", job.State, job.Error)
}

// progress is a line on a terminal that shows how far a job is.
type progress struct {
	to       io.Writer
	terminal bool
	began    time.Time
}

const barWidth = 30

func (p *progress) begin(id string) {
	if p.terminal {
		fmt.Fprintf(p.to, "job %s; Ctrl-C leaves it running\n", id)
	}
}

// show draws a line that is shorter than 80 columns: a longer one would not be replaced whole.
func (p *progress) show(job *admin.Job) {
	if !p.terminal {
		return
	}
	part := 0.0
	if job.Matched.N > 0 {
		part = min(float64(job.Seen)/float64(job.Matched.N), 1)
	}
	full := int(part * barWidth)
	rate := float64(job.Seen) / max(time.Since(p.began).Seconds(), 0.001)
	fmt.Fprintf(p.to, "\r\x1b[K[%s%s] %d of %s, %.0f %%, %.0f/s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		job.Seen, totalOf(&job.Matched), part*100, rate)
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// deliveriesOf is "1 delivery", "at least 500 deliveries".
func deliveriesOf(t *admin.Total) string {
	if uncounted(t) {
		return "deliveries whose number is not known, as counting them takes too long,"
	}
	if t.N == 1 && !t.AtLeast {
		return "1 delivery"
	}
	return totalOf(t) + " deliveries"
}

// uncounted tells whether the time for counting was over before anything was found: there may be none, or many.
func uncounted(t *admin.Total) bool { return t != nil && t.N == 0 && t.AtLeast }

func matchOf(t *admin.Total) string {
	if uncounted(t) {
		return "how many deliveries match is not known, as counting them takes too long"
	}
	if t.N == 1 && !t.AtLeast {
		return "1 delivery matches"
	}
	return totalOf(t) + " deliveries match"
}

// resentOf says of redeliveries that some of them match in vain, "" if none does.
func resentOf(count *admin.BulkAnswer) string {
	if r := count.Resent; r == nil || r.N == 0 && !r.AtLeast {
		return ""
	}
	some := totalOf(count.Resent)
	if uncounted(count.Resent) {
		some = "an unknown number"
	}
	return fmt.Sprintf(" (%s of them sent again since: an event goes once to an endpoint, and not if it was delivered since or is pending)", some)
}
