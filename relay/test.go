package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

// testWithin bounds a test: the longest total timeout of an endpoint, and a margin.
const testWithin = 11 * time.Minute

func (c *command) test() *cobra.Command {
	var a asking
	var kind, data string
	cmd := &cobra.Command{
		Use:   "test NAME",
		Short: "Send a test event to an endpoint now, and show what came back",
		Long: "Send a test event to an endpoint now: one real attempt, signed as all others, past rate limit, breaker and\n" +
			"pause. It counts for no breaker and no statistics, and stays in the history as manual.\n" +
			"Exit code 1: the receiver did not take it.",
		Example: "  relay test billing\n  relay test billing --type invoice.paid --data @invoice.json",
		Args:    argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			body := admin.TestRequest{Type: kind}
			if data != "" {
				text, err := c.input([]string{data})
				if err != nil {
					return fmt.Errorf("read --data: %w", err)
				}
				if !json.Valid(text) {
					return usageError{fmt.Errorf("--data is not JSON: write '{\"n\": 1}', @FILE, or - for standard input")}
				}
				body.Data = text
			}
			t, err := c.admin(a.finding)
			if err != nil {
				return err
			}
			return c.sendTest(a, t, path+"/test", body)
		},
	}
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&kind, "type", "", "`type` of the event; relay.test by default")
	cmd.Flags().StringVar(&data, "data", "", "data of the event: `JSON`, @file, or - for standard input")
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}

func (c *command) sendTest(a asking, t client.Target, path string, body admin.TestRequest) error {
	var r admin.TestResult
	text, err := question{method: http.MethodPost, path: path}.ask(t.Within(testWithin), body, &r)
	if err != nil {
		return err
	}
	if a.json {
		err = client.JSON(c.out, text)
	} else {
		var b strings.Builder
		fmt.Fprintf(&b, "test %s of %s: %s\n", r.ID, r.Endpoint, r.State)
		attemptText(&b, &r.Attempt)
		_, err = fmt.Fprint(c.out, b.String())
	}
	switch {
	case err != nil:
		return err
	case r.State != "delivered":
		return fmt.Errorf("%s did not take the test%s", r.Endpoint, because(r.Code, r.Error))
	}
	return nil
}
