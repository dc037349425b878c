package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relay/policy"
	"relay/relay/client"
)

// maxLines is how many events ingest takes in one request.
const maxLines = 1000

func (c *command) send() *cobra.Command {
	var find finding
	var key, token string
	var of envelope
	var ndjson bool
	cmd := &cobra.Command{
		Use:   "send TYPE [DATA|-|@FILE]",
		Short: "Hand events to a running Relay",
		Long: "Hand one event to a running Relay. DATA is JSON; - reads it from standard input, @FILE from a\n" +
			"file; without it the data is {}.\n\n" +
			"With --ndjson there is no TYPE: the input holds one event a line, {\"type\":…,\"data\":…}. It is sent in\n" +
			"requests of at most 1,000 lines that fit the body limit; each is accepted whole or not at all.",
		Example: "  relay send invoice.paid '{\"amount\": 1200}'\n  relay send order.paid '{}' --tenant acme\n  relay send --ndjson @events.ndjson",
		Args:    argRange(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !ndjson && len(args) == 0 {
				return usageError{errors.New("a TYPE is needed")}
			}
			if cmd.Flags().Changed("key") && key == "" {
				return usageError{errors.New("--key is empty: leave it out, or every such event would be taken as new")}
			}
			if !ndjson {
				if err := policy.ValidType(args[0]); err != nil {
					return usageError{fmt.Errorf("TYPE: %w", err)}
				}
			}
			if ndjson && (len(args) != 1 || key != "" || of != (envelope{})) {
				return usageError{errors.New("--ndjson takes one argument, - or @FILE, and no --key, --tenant or --id: its lines have them")}
			}
			t, err := c.ingest(find, token)
			if err != nil {
				return err
			}
			if ndjson {
				body, err := c.input(args)
				if err != nil {
					return err
				}
				return c.sendLines(t, body)
			}
			body, err := c.input(args[1:])
			if err != nil {
				return err
			}
			header := http.Header{"Content-Type": {"application/json"}}
			if key != "" {
				header.Set("Idempotency-Key", key)
			}
			if of != (envelope{}) {
				if body, err = of.whole(args[0], body); err != nil {
					return err
				}
				return c.post(t, client.Request{Path: "/v1/events", Header: header, Body: body})
			}
			return c.post(t, client.Request{Path: "/v1/events/" + url.PathEscape(args[0]), Header: header, Body: body})
		},
	}
	configFlag(cmd, &find.configs)
	cmd.Flags().StringVar(&find.address, "to", "", "`address` of Relay: unix:/path/relay.sock or http://host:port; else what the run file or the configuration says")
	cmd.Flags().StringVar(&token, "token", "", "bearer token; else $RELAY_TOKEN or the configuration's for this address")
	cmd.Flags().StringVar(&key, "key", "", "idempotency key: a repeat within 24 h is the same event")
	cmd.Flags().StringVar(&of.Tenant, "tenant", "", "`tenant` whose event it is")
	cmd.Flags().StringVar(&of.ID, "id", "", "`id` of the event; made if it is absent")
	cmd.Flags().BoolVar(&ndjson, "ndjson", false, "the input holds one whole event a line")
	return cmd
}

// envelope is what an event has beside type and data.
type envelope struct {
	ID     string `json:"id,omitempty"`
	Tenant string `json:"tenant,omitempty"`
}

// whole is an event that has more than type and data, as ingest takes it. The data stays byte for byte as it was given.
func (of envelope) whole(kind string, data []byte) ([]byte, error) {
	if !json.Valid(data) {
		return nil, usageError{errors.New("DATA is not JSON")}
	}
	head, err := json.Marshal(struct {
		Type string `json:"type"`
		envelope
	}{kind, of})
	if err != nil {
		return nil, fmt.Errorf("make event: %w", err)
	}
	return slices.Concat(head[:len(head)-1], []byte(`,"data":`), data, []byte("}")), nil
}

// post sends a POST and prints the answer to it. lines are those of NDJSON.
func (c *command) post(t client.Target, r client.Request, lines ...client.Line) error {
	r.Method = http.MethodPost
	code, answer, err := t.Do(r)
	if err != nil {
		return err
	}
	if code != http.StatusAccepted {
		return t.IngestRefusal(code, answer, lines...)
	}
	var receipt struct{ Deliveries *int }
	if json.Unmarshal(answer, &receipt) == nil && receipt.Deliveries != nil && *receipt.Deliveries == 0 {
		fmt.Fprintln(c.err, "relay: warning: accepted, but no endpoint wants events of this type")
	}
	_, err = fmt.Fprintf(c.out, "%s\n", answer)
	return err
}

// sendLines sends NDJSON in requests that the limits of ingest allow.
func (c *command) sendLines(t client.Target, input []byte) error {
	var batch []byte
	var lines []client.Line
	n, accepted := 0, false
	flush := func() error {
		if len(lines) == 0 {
			return nil
		}
		first := lines[0].Number
		r := client.Request{Path: "/v1/events", Header: http.Header{"Content-Type": {"application/x-ndjson"}}, Body: batch}
		if err := c.post(t, r, lines...); err != nil {
			err = fmt.Errorf("lines %d to %d: %w", first, lines[len(lines)-1].Number, err)
			if accepted {
				err = fmt.Errorf("%w; the lines before %d were accepted", err, first)
			}
			return err
		}
		batch, lines, accepted = batch[:0], lines[:0], true
		return nil
	}
	for line := range bytes.Lines(input) {
		if len(lines) == maxLines || len(batch)+len(line) > t.MaxBody {
			if err := flush(); err != nil {
				return err
			}
		}
		n++
		if len(bytes.TrimSpace(line)) > 0 {
			lines = append(lines, client.Line{Number: n, Start: len(batch)})
			batch = append(batch, line...)
		}
	}
	return flush()
}

// input resolves the DATA argument.
func (c *command) input(args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return []byte("{}"), nil
	case args[0] == "-":
		return io.ReadAll(c.in)
	case strings.HasPrefix(args[0], "@"):
		return os.ReadFile(args[0][1:])
	default:
		return []byte(args[0]), nil
	}
}
