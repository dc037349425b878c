package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"relay/config"
	"relay/internal/sorting"
	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) top() *cobra.Command {
	var find finding
	var sort string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show the endpoints of a running Relay by backlog, errors or latency, again every 2 s",
		Long: "Show the endpoints of a running Relay, the worst first, again every 2 s. BACKLOG is pending and held\n" +
			"deliveries, AGE the age of the oldest; FAILED, SUCCESS and P95 are those of the last hour.\n\n" +
			"Keys: b, e, l, n sort by backlog, errors, latency, name; space holds the picture; q ends it.\n" +
			"Without a terminal it prints one table and ends.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if topOrders()[sort] == nil {
				return usageError{fmt.Errorf("--sort is %q; it can be backlog, errors, latency or name.%s", sort, config.Suggest(sort, []string{"backlog", "errors", "latency", "name"}))}
			}
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			rows, err := topRows(t)
			if err != nil {
				return err
			}
			in, isFile := c.in.(*os.File)
			if !isFile || !isTerminal(c.out) || !isTerminal(in) {
				return c.output().Table(topTable(rows, sort))
			}
			return c.liveTop(&topView{t: t, sort: sort, rows: rows}, in)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().StringVar(&sort, "sort", "backlog", "backlog, errors, latency or name")
	if err := cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"backlog", "errors", "latency", "name"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there
	}
	return cmd
}

// topRow is an endpoint with its statistics of the last hour.
type topRow struct {
	admin.Endpoint
	stats admin.StatRow
}

func (r *topRow) backlog() int64 { return r.Deliveries.Pending + r.Deliveries.Held }

// failing is 1 for an endpoint of which no attempt delivered lately.
func (r *topRow) failing() int {
	if r.Failing == nil {
		return 0
	}
	return 1
}

func (r *topRow) p95() float64 {
	if r.stats.TookMS == nil {
		return 0
	}
	return r.stats.TookMS.P95
}

// topOrders are the orders by name, the worst first.
func topOrders() map[string]func(a, b *topRow) int {
	return map[string]func(a, b *topRow) int{
		"backlog": func(a, b *topRow) int { return cmp.Compare(b.backlog(), a.backlog()) },
		"errors": func(a, b *topRow) int {
			return cmp.Or(cmp.Compare(b.failing(), a.failing()), cmp.Compare(b.stats.Failed, a.stats.Failed))
		},
		"latency": func(a, b *topRow) int { return cmp.Compare(b.p95(), a.p95()) },
		"name":    func(a, b *topRow) int { return cmp.Compare(a.Name, b.Name) },
	}
}

func topRows(t client.Target) ([]topRow, error) {
	var list admin.EndpointList
	if _, err := (question{method: http.MethodGet, path: "/v1/endpoints"}).ask(t, nil, &list); err != nil {
		return nil, err
	}
	var stats admin.Statistics
	if _, err := (question{method: http.MethodGet, path: "/v1/stats?by=endpoint&since=1h"}).ask(t, nil, &stats); err != nil {
		return nil, err
	}
	of := map[string]admin.StatRow{}
	for _, row := range stats.Rows {
		if row.Endpoint != nil {
			of[*row.Endpoint] = row
		}
	}
	rows := make([]topRow, len(list.Endpoints))
	for i, e := range list.Endpoints {
		rows[i] = topRow{e, of[e.Name]}
	}
	return rows, nil
}

func topTable(rows []topRow, sort string) *client.Table {
	order := topOrders()[sort]
	sorting.By(rows, func(a, b topRow) int { return cmp.Or(order(&a, &b), cmp.Compare(a.Name, b.Name)) })
	table := &client.Table{Header: []string{"ENDPOINT", "STATE", "WAITS", "BACKLOG", "AGE", "DELIVERED", "FAILED", "SUCCESS", "P95"}}
	for i := range rows {
		r := &rows[i]
		age, p95 := "", ""
		if ms := r.Deliveries.OldestMS; ms != nil {
			age = (time.Duration(*ms) * time.Millisecond).Truncate(time.Second).String()
		}
		if r.stats.TookMS != nil {
			p95 = millisOf(r.p95())
		}
		table.Add(r.Name, stateOf(&r.Endpoint), waits(r.Endpoint, time.Now()), fmt.Sprint(r.backlog()), age, fmt.Sprint(r.stats.Delivered), fmt.Sprint(r.stats.Failed), share(r.stats.SuccessRate), p95)
	}
	return table
}

// topView is what the screen shows.
type topView struct {
	t       client.Target
	sort    string
	paused  bool
	rows    []topRow
	problem error
}

// key does what a key is for; false ends the view.
func (v *topView) key(key byte) bool {
	switch key {
	case 'q', 3, 4: // and Ctrl-C and Ctrl-D, which send no signal to a raw terminal
		return false
	case ' ':
		v.paused = !v.paused
	case 'b':
		v.sort = "backlog"
	case 'e':
		v.sort = "errors"
	case 'l':
		v.sort = "latency"
	case 'n':
		v.sort = "name"
	}
	return true
}

// screen is the view in so many lines and columns.
func (v *topView) screen(width, height int) string {
	var b strings.Builder
	state := "every 2 s"
	if v.paused {
		state = "held"
	}
	fmt.Fprintf(&b, "relay top  by %s, %s   b backlog  e errors  l latency  n name  space hold  q end\n", v.sort, state)
	if v.problem != nil {
		fmt.Fprintf(&b, "%s\n", client.Printable(v.problem.Error()))
	}
	_ = topTable(v.rows, v.sort).Align(&b) // a Builder takes all
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	lines = lines[:min(len(lines), max(height-1, 1))]
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	return "\x1b[H\x1b[2J" + strings.Join(lines, "\r\n")
}

// liveTop draws until a key or a signal ends it.
func (c *command) liveTop(v *topView, in *os.File) error {
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("set up the terminal: %w", err)
	}
	defer func() {
		_ = term.Restore(int(in.Fd()), old) // the process ends
		fmt.Fprint(c.out, "\r\n")
	}()
	keys := make(chan byte)
	go readKeys(in, keys)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		width, height := 80, 24
		if out, ok := c.out.(*os.File); ok {
			if w, h, err := term.GetSize(int(out.Fd())); err == nil && w > 0 && h > 0 {
				width, height = w, h
			}
		}
		if _, err := fmt.Fprint(c.out, v.screen(width, height)); err != nil {
			return err
		}
		select {
		case key, open := <-keys:
			if !open || !v.key(key) {
				return nil
			}
		case <-tick.C:
			if !v.paused {
				if rows, err := topRows(v.t); err == nil {
					v.rows, v.problem = rows, nil
				} else {
					v.problem = err
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// readKeys reads until the terminal ends, or the process.
func readKeys(in *os.File, keys chan<- byte) {
	defer close(keys)
	one := make([]byte, 1)
	for {
		if n, err := in.Read(one); err != nil || n == 0 {
			return
		}
		keys <- one[0]
	}
}
