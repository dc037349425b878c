package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) jobs() *cobra.Command {
	var a asking
	var watch, follow bool
	var page pageFlags
	cmd := &cobra.Command{
		Use:   "jobs [ID]",
		Short: "Show the jobs of a running Relay and how far they are, newest first",
		Long: "Show the jobs that relay redeliver, retry, discard and erase started with a filter, newest first. DONE is\n" +
			"deliveries that were changed, SKIPPED those that were not, by reason. --follow shows one job until it ends.",
		Args: argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if follow {
				if len(args) == 0 || args[0] == "" {
					return usageError{fmt.Errorf("--follow needs the ID of a job: relay jobs lists them")}
				}
				t, err := c.admin(a.finding)
				if err != nil {
					return err
				}
				return c.follow(t, url.PathEscape(args[0]), a.json)
			}
			return c.watch(watch, func(c *command) error { return c.showJobs(a, args, &page) })
		},
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show the progress of the job until it ends")
	page.add(cmd)
	cmd.AddCommand(c.cancelJob())
	return cmd
}

// pageFlags are those of lists without a filter.
type pageFlags struct{ limit, cursor string }

func (p *pageFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.limit, "limit", "", "items of a page, a `number` from 1 to 100; 20 by default")
	cmd.Flags().StringVar(&p.cursor, "cursor", "", "where the next page begins, a `text` that the page before told")
}

func (p *pageFlags) path(path string) string { return withQuery(path, p.query(url.Values{})) }

// query adds the page to a query.
func (p *pageFlags) query(q url.Values) url.Values {
	if p.limit != "" {
		q.Set("limit", p.limit)
	}
	if p.cursor != "" {
		q.Set("cursor", p.cursor)
	}
	return q
}

func (c *command) showJobs(a asking, args []string, page *pageFlags) error {
	if len(args) > 0 {
		path, err := under("/v1/jobs", args[0])
		if err != nil {
			return err
		}
		var job admin.Job
		return c.show(a, path, &job, func() error { return c.printJob(&job) })
	}
	var list admin.JobList
	return c.show(a, page.path("/v1/jobs"), &list, func() error {
		if err := printJobs(c.output(), list.Items); err != nil {
			return err
		}
		return c.output().Remark(moreOf(len(list.Items), list.Total, list.Next))
	})
}

func (c *command) printJob(job *admin.Job) error {
	if err := printJobs(c.output(), []admin.Job{*job}); err != nil {
		return err
	}
	text := "filter: " + filterText(job.Filter) + "\n"
	if job.Error != "" {
		text += "error: " + client.Printable(job.Error) + "\n"
	}
	if job.Ended.IsZero() {
		text += "follow it: relay jobs --follow " + job.ID + "; end it: relay jobs cancel " + job.ID + "\n"
	}
	return c.output().Remark(text)
}

func filterText(filter map[string][]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(filter)) {
		for _, v := range filter[name] {
			parts = append(parts, client.Printable(name+"="+v))
		}
	}
	return strings.Join(parts, " ")
}

func printJobs(to client.Output, all []admin.Job) error {
	table := client.Table{Header: []string{"JOB", "ACTION", "STATE", "MATCHED", "SEEN", "DONE", "SKIPPED", "CREATED", "ENDED", "WHO"}}
	for i := range all {
		j := &all[i]
		var skipped []string
		for _, why := range slices.Sorted(maps.Keys(j.Skipped)) {
			skipped = append(skipped, fmt.Sprintf("%s %d", why, j.Skipped[why]))
		}
		table.Add(j.ID, j.Action, j.State, totalOf(&j.Matched), fmt.Sprint(j.Seen), fmt.Sprint(j.Done), strings.Join(skipped, ", "), when(j.Created), when(j.Ended), j.Who)
	}
	return to.Table(&table)
}

func (c *command) cancelJob() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a job: what it changed stays",
		Args:  argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/jobs", args[0])
			if err != nil {
				return err
			}
			t, err := c.admin(a.finding)
			if err != nil {
				return err
			}
			var job admin.Job
			text, err := question{method: http.MethodPost, path: path + "/cancel"}.ask(t, nil, &job)
			switch {
			case err != nil:
				return err
			case a.json:
				return client.JSON(c.out, text)
			}
			return c.printJob(&job)
		},
	}
	askFlags(cmd, &a)
	return cmd
}
