package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relay/internal/sorting"
	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/query"
)

func (c *command) stats() *cobra.Command {
	var a asking
	var watch bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how deliveries ended and how long attempts took, over time",
		Long: "Show how deliveries ended and how long attempts took, in the last day unless --since says otherwise.\n\n" +
			"SUCCESS is the part that was delivered of those that were delivered or failed, FIRST that of the first\n" +
			"attempt. Counts and means are exact, percentiles are within 2 %. Tests are left out. BACKLOG is pending\n" +
			"and held deliveries at present, AGE how long ago nine of ten of them were accepted, at most. With --step\n" +
			"BACKLOG is the most in each step, of all or of one --endpoint, by a look once a minute, for 31 days.",
		Example: "  relay stats --by endpoint --since 7d\n  relay stats --endpoint billing --step day",
		Args:    noArgs,
	}
	f := filterFlags(cmd, query.Stats)
	cmd.RunE = func(*cobra.Command, []string) error {
		return c.watch(watch, func(c *command) error {
			path, err := f.path("/v1/stats")
			if err != nil {
				return err
			}
			var s admin.Statistics
			return c.show(a, path, &s, func() error { return c.printStats(&s) })
		})
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	return c.completing(cmd, "endpoint", f.use)
}

func (c *command) printStats(s *admin.Statistics) error {
	table := client.Table{Header: []string{"FROM", "NAME", "ENDED", "DELIVERED", "FAILED", "DISCARDED", "SUCCESS", "FIRST", "ATTEMPTS", "MEAN", "P50", "P95", "P99", "BACKLOG", "AGE"}}
	for _, r := range withBacklogs(s) {
		table.Add(statCells(&r)...)
	}
	total := statCells(&s.Total)
	total[0], total[1] = when(s.Since), "total"
	table.Add(total...)
	return c.output().Table(&table)
}

// withBacklogs are the rows with the most that was not over in each step. A step that has nothing else gets a row.
func withBacklogs(s *admin.Statistics) []admin.StatRow {
	most := map[int64]int64{} // by the start of a step
	for _, b := range s.Backlogs {
		most[b.Start.Unix()] = b.Most
	}
	var rows []admin.StatRow
	for _, r := range s.Rows {
		if n, known := most[r.Start.Unix()]; known {
			r.Backlog = &admin.Backlog{Count: admin.Total{N: n}}
			delete(most, r.Start.Unix())
		}
		rows = append(rows, r)
	}
	for start, n := range most {
		if n > 0 {
			rows = append(rows, admin.StatRow{Start: time.Unix(start, 0), Backlog: &admin.Backlog{Count: admin.Total{N: n}}})
		}
	}
	if len(s.Backlogs) > 0 { // else the rows stay as they are sorted, by time and then by name
		sorting.By(rows, func(a, b admin.StatRow) int { return a.Start.Compare(b.Start) })
	}
	return rows
}

func statCells(r *admin.StatRow) []string {
	name := ""
	for _, n := range []*string{r.Endpoint, r.Type, r.Tenant} {
		if n != nil {
			name = *n
		}
	}
	number := func(n int64) string { return fmt.Sprint(n) }
	attempts := number(r.Attempts)
	if r.MeanAttempts != nil {
		attempts = fmt.Sprintf("%d (%.2f each)", r.Attempts, *r.MeanAttempts)
	}
	cells := []string{when(r.Start), name, number(r.Ended), number(r.Delivered), number(r.Failed), number(r.Discarded), share(r.SuccessRate), share(r.FirstTryRate), attempts}
	if t := r.TookMS; t != nil {
		cells = append(cells, millisOf(t.Mean), millisOf(t.P50), millisOf(t.P95), millisOf(t.P99))
	} else {
		cells = append(cells, "", "", "", "")
	}
	backlog, age := "", ""
	if b := r.Backlog; b != nil {
		backlog = totalOf(&b.Count)
		if b.AgeMS != nil {
			age = time.Duration(b.AgeMS.P90 * float64(time.Millisecond)).Round(time.Second).String()
		}
	}
	return append(cells, backlog, age)
}

// share is a part of 1 in per cent; "" if there is none.
func share(part *float64) string {
	if part == nil {
		return ""
	}
	if *part < 1 && *part > 0.9994 {
		return "99.9 %" // only all is 100 %
	}
	return fmt.Sprintf("%.1f %%", *part*100)
}
