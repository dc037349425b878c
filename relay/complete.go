package main

import (
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/query"
)

// completeWithin bounds the question for names while somebody waits at a shell.
const completeWithin = 500 * time.Millisecond

// completing makes the shell complete values: names of endpoints of the running Relay in a flag, and
// words of the filter's flags. It returns cmd.
func (c *command) completing(cmd *cobra.Command, endpoint string, use query.Use) *cobra.Command {
	complete := func(name string, f cobra.CompletionFunc) {
		if err := cmd.RegisterFlagCompletionFunc(name, f); err != nil {
			panic(err) // a flag that the verb lacks
		}
	}
	for _, p := range query.For(use) {
		if name := flagOf(p.Name); len(p.Values) > 0 && name != endpoint {
			complete(name, cobra.FixedCompletions(p.Values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if endpoint != "" {
		complete(endpoint, c.completeEndpoints)
	}
	return cmd
}

// completeEndpoints lists the endpoints of the running Relay, none if it does not answer.
func (c *command) completeEndpoints(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var f finding
	f.configs, _ = cmd.Flags().GetStringArray("config")
	f.address, _ = cmd.Flags().GetString("admin")
	quiet := *c
	quiet.err = io.Discard
	t, err := quiet.admin(f)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list admin.EndpointList
	if _, err := (question{method: http.MethodGet, path: "/v1/endpoints"}).ask(t.Within(completeWithin), nil, &list); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range list.Endpoints {
		names = append(names, list.Endpoints[i].Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeEndpoint completes the first argument.
func (c *command) completeEndpoint(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeEndpoints(cmd, args, start)
}
