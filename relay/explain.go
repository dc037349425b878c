package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/ingest"
	"relay/outbox"
	"relay/policy"
	"relay/relay/client"
	"relay/relay/explain"
)

func (c *command) explain() *cobra.Command {
	var find finding
	var endpoint string
	var signed, asJSON, running bool
	cmd := &cobra.Command{
		Use:   "explain EVENT.json",
		Short: "Say who gets an event, as which request, and when",
		Long: "Say for every endpoint of the configuration whether it gets an event and why; show the request\n" +
			"of a first attempt; list when the next ones would be. EVENT.json is what one would POST to\n" +
			"/v1/events; - reads it from standard input. Nothing is sent, looked up or stored.\n\n" +
			"Values of an endpoint's own headers, the query of its URL and signatures are not shown.\n" +
			"--sign shows signatures, made now with the endpoint's secrets. Anybody who has them can send this\n" +
			"request in your name while the receiver accepts its time.\n\n" +
			"--running asks the Relay that runs, by the file that it has: where that cannot be read here, and for\n" +
			"endpoints that were made at run time.",
		Example: "  relay explain event.json\n  echo '{\"type\":\"invoice.paid\",\"data\":{}}' | relay explain - --endpoint billing --sign",
		Args:    argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if running && signed {
				return usageError{errors.New("--running shows no signatures: leave --sign out")}
			}
			if running {
				return c.explainRunning(asking{find, asJSON}, args[0], endpoint)
			}
			file, p, err := c.load(find.configs)
			if err != nil {
				return err
			}
			endpoints := p.Endpoints
			if endpoint != "" {
				e := p.Endpoint(endpoint)
				if e == nil {
					return usageError{noEndpoint(endpoint, p)}
				}
				endpoints = []*policy.Endpoint{e}
			}
			entry, err := c.event(args[0], ingest.Options{
				Route: p.Route, Type: p.Type,
				MaxBody: file.Config.Ingest.MaxBody, Strict: file.Config.Ingest.Strict,
			})
			if err != nil {
				return err
			}
			out := explain.For(&entry, endpoints, explain.Options{
				Version: version, Own: explain.OwnAddresses(file.Config), Signed: signed, Now: time.Now().UTC(),
			})
			if asJSON {
				return client.JSON(c.out, out)
			}
			return out.Print(c.out, signed)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&running, "running", false, "ask the Relay that runs, which --admin finds")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "only the endpoint of this `name`")
	cmd.Flags().BoolVar(&signed, "sign", false, "show real signatures, made now")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// explainRunning asks the Relay that runs.
func (c *command) explainRunning(a asking, path, endpoint string) error {
	if path != "-" {
		path = "@" + path
	}
	text, err := c.input([]string{path})
	if err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	if !json.Valid(text) {
		return fmt.Errorf("the event is not JSON")
	}
	t, err := c.admin(a.finding)
	if err != nil {
		return err
	}
	query := url.Values{}
	if endpoint != "" {
		query.Set("endpoint", endpoint)
	}
	var out explain.Explanation
	answer, err := question{method: http.MethodPost, path: withQuery("/v1/explain", query)}.ask(t, json.RawMessage(text), &out)
	switch {
	case err != nil:
		return err
	case a.json:
		return client.JSON(c.out, answer)
	}
	return out.Print(c.out, false)
}

func noEndpoint(name string, p *policy.Policy) error {
	var names []string
	for _, e := range p.Endpoints {
		names = append(names, e.Name)
	}
	return fmt.Errorf("the configuration has no endpoint %q.%s", name, config.Suggest(name, names))
}

// event reads the event as ingest would.
func (c *command) event(path string, o ingest.Options) (outbox.Entry, error) {
	in, name := c.in, "the event on standard input"
	if path != "-" {
		name = path
		f, err := os.Open(path)
		if err != nil {
			return outbox.Entry{}, fmt.Errorf("read event: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, o.MaxBody+1))
	if err != nil {
		return outbox.Entry{}, fmt.Errorf("read event: %w", err)
	}
	entry, err := ingest.ParseEvent(text, o)
	if err != nil {
		return entry, fmt.Errorf("%s would be refused: %w", name, err)
	}
	return entry, nil
}
