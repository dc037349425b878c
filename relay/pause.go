package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/deliver"
)

func (c *command) pause() *cobra.Command {
	return c.changeState("pause", "Hold the deliveries of endpoints of a running Relay, until relay resume",
		"Events go on to be accepted for them, and nothing is lost: what comes in is held. Attempts under way end.")
}

func (c *command) resume() *cobra.Command {
	return c.changeState("resume", "Let endpoints go on that were paused, or wait for a Retry-After or an open breaker",
		"Held deliveries go out, the oldest first. A time that the receiver asked for is over, and an\n"+
			"open breaker tries the receiver now. Below the table stands what ended.")
}

func (c *command) enable() *cobra.Command {
	return c.changeState("enable", "Let endpoints that were disabled go on, by relay disable or by Relay",
		"Held deliveries go out, the oldest first. A time that the receiver asked for is over, too, and the\n"+
			"breaker closes. Below the table stands what ended. One that is disabled in the file is enabled there.")
}

func (c *command) disable() *cobra.Command {
	return c.changeState("disable", "Hold the deliveries of endpoints of a running Relay, until relay enable",
		"Like relay pause, for longer: events go on to be accepted for them, and what comes in is held.")
}

// changeState is a verb of one route of endpoints. If one endpoint cannot be changed it continues
// with the others, and exits with 1.
func (c *command) changeState(verb, short, long string) *cobra.Command {
	var find finding
	var asJSON bool
	cmd := &cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		Long: short + ".\n\n" + long + "\n\n" +
			"It holds for all Relays of a shared outbox, and over restarts. A repeat is no error. The\n" +
			"endpoints are shown as they are then; relay endpoints --help explains the table.",
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 || slices.Contains(names, "") {
				return usageError{errors.New("the NAME of an endpoint is needed: relay endpoints lists them")}
			}
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			return c.askState(t, verb, names, asJSON)
		},
		ValidArgsFunction: c.completeEndpoints,
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: an object with endpoints, each in the shape of the admin API")
	return cmd
}

func (c *command) askState(t client.Target, verb string, names []string, asJSON bool) error {
	done := changed{Endpoints: []admin.Endpoint{}}
	var refused []error
	for _, name := range names {
		code, answer, err := t.Do(client.Request{Method: http.MethodPost, Path: "/v1/endpoints/" + url.PathEscape(name) + "/" + verb})
		if err != nil {
			return errors.Join(append(refused, err)...) // the others would fail in the same way
		}
		var e admin.Endpoint
		if code != http.StatusOK {
			err = t.AdminRefusal(code, answer)
		} else {
			err = json.Unmarshal(answer, &e)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("%s %s: %w", verb, name, err))
			continue
		}
		done.Endpoints = append(done.Endpoints, e)
	}
	if err := c.printChanged(done, asJSON); err != nil {
		return err
	}
	return errors.Join(refused...)
}

// changed are the endpoints that were changed, as they are then.
type changed struct {
	Endpoints []admin.Endpoint `json:"endpoints"`
}

func (c *command) printChanged(done changed, asJSON bool) error {
	switch {
	case asJSON:
		return client.JSON(c.out, done)
	case len(done.Endpoints) == 0:
		return nil
	default:
		to := c.output()
		if err := printEndpoints(to, done.Endpoints, time.Now()); err != nil {
			return err
		}
		return to.Remark(ended(done.Endpoints))
	}
}

// ended says what the verb ended at each endpoint.
func ended(endpoints []admin.Endpoint) string {
	words := map[string]string{
		deliver.WaitPaused:     "no longer paused",
		deliver.WaitDisabled:   "no longer disabled",
		deliver.WaitRetryAfter: "no longer waits as the receiver asked (Retry-After)",
		deliver.WaitBreaker:    "no longer waits for the open breaker",
	}
	var b strings.Builder
	for _, e := range endpoints {
		if len(e.Ended) == 0 {
			continue
		}
		var causes []string
		for _, cause := range e.Ended {
			causes = append(causes, words[cause])
		}
		fmt.Fprintf(&b, "%s: %s\n", e.Name, strings.Join(causes, ", "))
	}
	return b.String()
}
