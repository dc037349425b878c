package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) audit() *cobra.Command {
	var a asking
	var watch bool
	var page pageFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what at a running Relay, newest first",
		Long: "Show who changed what by the admin listener, newest first: the user of a process at the Unix socket, or\n" +
			"whose token it was. --json has what was before and after, too, without secrets.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.watch(watch, func(c *command) error { return c.showAudit(a, &page) })
		},
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	page.add(cmd)
	return cmd
}

func (c *command) showAudit(a asking, page *pageFlags) error {
	var list admin.AuditList
	return c.show(a, page.path("/v1/audit"), &list, func() error {
		table := client.Table{Header: []string{"TIME", "WHO", "VERB", "WHAT", "COUNT"}}
		for _, e := range list.Items {
			count := ""
			if e.Count != nil {
				count = fmt.Sprint(*e.Count)
			}
			table.Add(when(e.Time), e.Who, e.Verb, e.What, count)
		}
		if err := c.output().Table(&table); err != nil {
			return err
		}
		return c.output().Remark(moreOf(len(list.Items), nil, list.Next))
	})
}
