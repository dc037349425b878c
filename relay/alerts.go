package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) alerts() *cobra.Command {
	var a asking
	var watch bool
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Show the alerts of a running Relay that fire, and those of its file",
		Long: "Show the alerts of a running Relay that fire, each with the endpoint or certificate that it is about, then those\n" +
			"of its file that do not. With a shared outbox they are those of the whole fleet.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.watch(watch, func(c *command) error {
				var list admin.AlertList
				return c.show(a, "/v1/alerts", &list, func() error { return printAlerts(c.output(), &list) })
			})
		},
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	return cmd
}

func printAlerts(to client.Output, list *admin.AlertList) error {
	table := client.Table{Header: []string{"ALERT", "STATE", "ABOUT", "ON", "LIMIT", "VALUE", "SINCE"}}
	for _, f := range list.Firing {
		table.Add(f.Alert, "firing", f.About, f.On, f.Limit, f.Value, when(f.Since))
	}
	for _, x := range list.Alerts {
		if x.Firing == 0 {
			table.Add(x.Name, "quiet", strings.Join(x.Endpoints, ", "), x.On, x.Limit, "", "")
		}
	}
	if err := to.Table(&table); err != nil {
		return err
	}
	if len(list.Alerts) == 0 {
		return to.Remark("the file has no alert: see relay.hcl.example for one\n")
	}
	return to.Remark(fmt.Sprintf("%d firing\n", len(list.Firing)))
}
