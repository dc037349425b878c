package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/deliver"
)

func (c *command) endpoints() *cobra.Command {
	var a asking
	var s selection
	var watch bool
	cmd := &cobra.Command{
		Use:   "endpoints [NAME]",
		Short: "Show the endpoints of a running Relay and what waits for them",
		Long: "Show the endpoints of a running Relay, as in its file, then those that only the outbox or the files\n" +
			"of other Relays know. Counts are since the outbox was made; OLDEST is the age of the oldest delivery\n" +
			"that is not over.\n\n" +
			"STATE: active; failing: active, and none of its last attempts delivered; paused, disabled or\n" +
			"removed: its deliveries are held; elsewhere: only other Relays deliver it.\n\n" +
			"WAITS says why an endpoint that takes deliveries gets none right now, and for how long at least: limit (its\n" +
			"rate_limit), breaker (it mostly failed), retry_after (the receiver asked for time), consent (the receiver has\n" +
			"not given it to a handshake), slots (its concurrency).\n\n" +
			"AGREES tells whether all Relays with the same outbox have the same settings for the endpoint. Where\n" +
			"they do not, each Relay delivers by its own file.\n\n" +
			"An endpoint whose name is that of a verb below is shown by relay endpoints show.",
		Args: argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 && args[0] == "" {
				return usageError{errors.New("NAME is empty: leave it out to see all")}
			}
			return c.watch(watch, func(c *command) error {
				if len(args) > 0 {
					return c.showEndpoint(a, args[0])
				}
				path, err := s.path()
				if err != nil {
					return err
				}
				var list admin.EndpointList
				return c.show(a, path, &list, func() error { return c.printEndpoints(&list) })
			})
		},
		ValidArgsFunction: c.completeEndpoint,
	}
	askFlags(cmd, &a)
	s.add(cmd)
	watchFlag(cmd, &watch)
	cmd.AddCommand(c.showOne("endpoint", c.showEndpoint), c.addEndpoint(), c.setEndpoint(), c.removeEndpoint(), c.exportEndpoint())
	return cmd
}

func (c *command) showEndpoint(a asking, name string) error {
	path, err := under("/v1/endpoints", name)
	if err != nil {
		return err
	}
	var e admin.Endpoint
	return c.show(a, path, &e, func() error {
		if err := c.printEndpoints(&admin.EndpointList{Endpoints: []admin.Endpoint{e}}); err != nil {
			return err
		}
		return c.output().Remark(aboutEndpoint(&e))
	})
}

// aboutEndpoint is what the answer for one endpoint has more than a list.
func aboutEndpoint(e *admin.Endpoint) (text string) {
	if s := e.Stats; s != nil {
		mean := "-"
		if s.MeanMS != nil {
			mean = millisOf(*s.MeanMS)
		}
		text = fmt.Sprintf("since %s: %s, success %s, mean %s; the newest: relay deliveries --endpoint %s\n", when(s.Since), deliveriesOf(&admin.Total{N: s.Total}), cmp.Or(share(s.SuccessRate), "-"), mean, e.Name)
	}
	if m := e.Made; m != nil {
		text += fmt.Sprintf("made at run time: revision %s, secrets %d, settings %s\n", m.Revision, m.Secrets, client.Printable(string(m.Settings)))
		for _, flaw := range m.Flaws {
			text += client.Printable("not in force: "+flaw.Pointer+" "+flaw.Detail) + "\n"
		}
	}
	return text
}

func (c *command) printEndpoints(list *admin.EndpointList) error {
	if err := printEndpoints(c.output(), list.Endpoints, time.Now()); err != nil {
		return err
	}
	if n := len(list.Endpoints); list.Total > n {
		return c.output().Remark(fmt.Sprintf("%d of %d shown; further ones: --offset\n", n, list.Total))
	}
	return nil
}

// selection is the flags that select endpoints.
type selection struct {
	states, tenants, labels                 []string
	made, words, sort, limit, offset, stats string
}

func (s *selection) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.states, "state", nil, "`word`: active, paused, disabled, removed, elsewhere or invalid (repeatable)")
	f.StringArrayVar(&s.labels, "label", nil, "label of the endpoint, as `name=value`")
	f.StringArrayVar(&s.tenants, "tenant", nil, "endpoints for this tenant, a `text` (repeatable)")
	f.StringVar(&s.made, "made", "", "`true` for those that were made at run time, false for those of the file")
	f.StringVarP(&s.words, "q", "q", "", "a `part` of name, URL or description, in any case")
	f.StringVar(&s.sort, "sort", "", "`order`: name, state, pending, failed (most first), created (newest first), attention (those that need a person first); that of the file by default")
	f.StringVar(&s.limit, "limit", "", "endpoints to show, a `number` from 1 to 1000; all by default")
	f.StringVar(&s.stats, "stats", "", "statistics of this `time` with each endpoint, like 24h or 7d; shown by --json")
	f.StringVar(&s.offset, "offset", "", "`number` of endpoints to leave out first")
}

func (s *selection) path() (string, error) {
	q := url.Values{"state": s.states, "tenant": s.tenants}
	for name, value := range map[string]string{"made": s.made, "q": s.words, "sort": s.sort, "limit": s.limit, "offset": s.offset, "stats": s.stats} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for _, label := range s.labels {
		name, value, ok := strings.Cut(label, "=")
		if !ok || name == "" {
			return "", usageError{fmt.Errorf("--label %q is not NAME=VALUE", label)}
		}
		q.Set("label."+name, value)
	}
	return withQuery("/v1/endpoints", q), nil
}

func printEndpoints(to client.Output, endpoints []admin.Endpoint, now time.Time) error {
	table := client.Table{Header: []string{"NAME", "URL", "STATE", "WAITS", "PENDING", "HELD", "DELIVERED", "FAILED", "OLDEST", "HASH", "AGREES"}}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	differ := false
	for _, e := range endpoints {
		d, oldest, agrees := e.Deliveries, "-", "-"
		if d.OldestMS != nil {
			oldest = (time.Duration(*d.OldestMS) * time.Millisecond).Truncate(time.Second).String()
		}
		if e.Agrees != nil {
			agrees = "yes"
			if !*e.Agrees {
				agrees, differ = "no", true
			}
		}
		table.Add(e.Name, cmp.Or(e.URL, "-"), stateOf(&e), waits(e, now),
			number(d.Pending), number(d.Held), number(d.Delivered), number(d.Failed), oldest, cmp.Or(e.Hash, "-"), agrees)
	}
	if err := to.Table(&table); err != nil {
		return err
	}
	if err := to.Remark(reasons(endpoints)); err != nil || !differ {
		return err
	}
	return to.Remark("AGREES no: the files of the Relays differ, and each delivers by its own. --json says who has which hash;\nbring the files into line and reload the Relays that are behind.\n")
}

// stateOf is the state of an endpoint, in a word.
func stateOf(e *admin.Endpoint) string {
	if e.State == string(deliver.Active) && e.Failing != nil {
		return "failing"
	}
	return e.State
}

// waits says why nothing is claimed, and for how long at least; "-" if the state says it already.
func waits(e admin.Endpoint, now time.Time) string {
	until := time.Time{}
	switch e.Waiting {
	case "", e.State, string(deliver.Paused), string(deliver.Disabled):
		return "-"
	case deliver.WaitBreaker:
		until = e.OpenUntil
	case deliver.WaitRetryAfter:
		until = e.HeldUntil
	}
	if left := until.Sub(now); left > 0 {
		return e.Waiting + " " + max(left.Truncate(time.Second), time.Second).String()
	}
	return e.Waiting
}

// reasons says why endpoints take no deliveries or have no consent, and how to end that.
func reasons(endpoints []admin.Endpoint) string {
	var b strings.Builder
	for _, e := range endpoints {
		if line := reason(e); line != "" {
			fmt.Fprintf(&b, "%s: %s\n", e.Name, line)
		}
		if f := e.Failing; f != nil {
			fmt.Fprintf(&b, "%s: failing since %s: no attempt delivered, the last one ended with %s; why: relay deliveries --endpoint %s\n", e.Name, f.Since.UTC().Format(time.RFC3339), f.Code, e.Name)
		}
	}
	return b.String()
}

// reason is the line of one endpoint, "" for none.
func reason(e admin.Endpoint) string {
	state, next := e.State, ""
	switch {
	case e.Reason == "":
		return ""
	case e.State == string(deliver.Active):
		state = "waits for " + e.Waiting
	case e.State == string(deliver.Paused):
		next = "; to go on: relay resume " + e.Name
	case e.State != string(deliver.Disabled):
		return ""
	case e.Code != "":
		next = "; to go on: relay enable " + e.Name
	}
	if e.Paused && next == "" {
		next = "; it is paused, too: relay resume " + e.Name
	} else if e.Paused {
		next += ", and, because it is paused, too: relay resume " + e.Name
	}
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.UTC().Format(time.RFC3339)
	}
	if e.Code == deliver.ByOperator {
		return e.Reason + since + next // the reason names the state
	}
	return state + since + ": " + e.Reason + next
}
