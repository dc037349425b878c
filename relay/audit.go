package main

import (
	"net/url"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) audit() *cobra.Command {
	var a asking
	var watch bool
	var page pageFlags
	filter := url.Values{}
	cmd := &cobra.Command{
		Use:     "audit",
		Short:   "Show who changed what at a running Relay, newest first",
		Example: "  relay audit --what billing --since 24h\n  relay audit --who support --verb redeliver --verb retry",
		Long: "Show who changed what by the admin listener, newest first: the user of a process at the Unix socket, or\n" +
			"whose token it was. --json has what was before and after, too, without secrets.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.watch(watch, func(c *command) error { return c.showAudit(a, withQuery("/v1/audit", page.query(filter))) })
		},
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	page.add(cmd)
	for _, f := range [][2]string{
		{"who", "a part of who made the change: a `text`"}, {"what", "a part of what was changed, a `text` like \"endpoint billing\""},
		{"since", "a `time`, or a duration back from now"}, {"until", "a `time`, or a duration back from now"},
	} {
		cmd.Flags().Func(f[0], f[1], func(v string) error { filter.Set(f[0], v); return nil })
	}
	cmd.Flags().Func("verb", "what was done, or its first `word`; can be given several times", func(v string) error { filter.Add("verb", v); return nil })
	return cmd
}

func (c *command) showAudit(a asking, path string) error {
	var list admin.AuditList
	return c.show(a, path, &list, func() error {
		table := client.Table{Header: []string{"TIME", "WHO", "VERB", "WHAT", "COUNT"}}
		for _, e := range list.Items {
			table.Add(when(e.Time), e.Who, e.Verb, e.What, totalOf(e.Count))
		}
		if err := c.output().Table(&table); err != nil {
			return err
		}
		return c.output().Remark(moreOf(len(list.Items), nil, list.Next))
	})
}
