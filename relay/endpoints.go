package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	var find finding
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "endpoints [NAME]",
		Short: "Show the endpoints of a running Relay and what waits for them",
		Long: "Show the endpoints of a running Relay, as in its file, then those that only the outbox or the files\n" +
			"of other Relays know. Counts are since the outbox was made; OLDEST is the age of the oldest delivery\n" +
			"that is not over.\n\n" +
			"STATE: active; paused, disabled or removed: its deliveries are held; elsewhere: only other Relays deliver it.\n\n" +
			"WAITS says why an endpoint that takes deliveries gets none right now, and for how long at least: limit (its\n" +
			"rate_limit), breaker (it mostly failed), retry_after (the receiver asked for time), consent (the receiver has\n" +
			"not given it to a handshake), slots (its concurrency).\n\n" +
			"AGREES tells whether all Relays with the same outbox have the same settings for the endpoint. Where\n" +
			"they do not, each Relay delivers by its own file.",
		Args: argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				if name = args[0]; name == "" {
					return usageError{errors.New("NAME is empty: leave it out to see all")}
				}
			}
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			return c.showEndpoints(t, name, asJSON)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// showEndpoints asks for one endpoint, or for all if name is "".
func (c *command) showEndpoints(t client.Target, name string, asJSON bool) error {
	path := "/v1/endpoints"
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	code, answer, err := t.Do(http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return t.AdminRefusal(code, answer)
	}
	var list admin.EndpointList
	if name == "" {
		err = json.Unmarshal(answer, &list)
	} else {
		list.Endpoints = make([]admin.Endpoint, 1)
		err = json.Unmarshal(answer, &list.Endpoints[0])
	}
	if err != nil {
		return fmt.Errorf("read answer of %s (%d bytes): %w", path, len(answer), err)
	}
	if asJSON {
		return client.JSON(c.out, json.RawMessage(answer))
	}
	return printEndpoints(c.output(), list.Endpoints, time.Now())
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
		table.Add(e.Name, cmp.Or(e.URL, "-"), e.State, waits(e, now),
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
