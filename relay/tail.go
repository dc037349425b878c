package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/query"
)

func (c *command) tail() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow the attempts of a running Relay as they end",
		Long: "Follow the attempts of the Relay that answers, as they end, until Ctrl-C. All conditions must hold. After a\n" +
			"restart of Relay it goes on. It tells how many attempts were left out because this reader was too slow.\n" +
			"--json prints one object a line.",
		Example: "  relay tail --endpoint billing\n  relay tail --state failed --json | jq .code",
		Args:    noArgs,
	}
	f := filterFlags(cmd, query.Tail)
	cmd.RunE = func(*cobra.Command, []string) error {
		path, err := f.path("/v1/tail")
		if err != nil {
			return err
		}
		return (&tailing{c: c, asking: a, path: path}).run()
	}
	askFlags(cmd, &a)
	return c.completing(cmd, "endpoint", f.use)
}

// Times of relay tail.
const (
	tailSilence = 45 * time.Second // three heartbeats: the connection is dead
	tailPause   = time.Second      // before it asks again
)

// tailing prints attempts as they end.
type tailing struct {
	c *command
	asking
	path  string
	begun bool // Relay has answered once
}

// errRefused is an answer that would be the same the next time.
type errRefused struct{ error }

// errOutput is a reader of the lines that has gone.
type errOutput struct{ error }

func (t *tailing) run() error {
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	for {
		open, err := t.read(ctx)
		refusal, final := errors.AsType[errRefused](err)
		output, gone := errors.AsType[errOutput](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case gone:
			return output.error
		case final:
			return refusal.error
		case !t.begun:
			return err
		}
		if open {
			now := when(time.Now())
			fmt.Fprintf(t.c.err, "relay: the connection has ended at %s (%v); asking again. Attempts from now until then: relay deliveries --attempted-since %[1]s\n", now, err)
		}
		if !wait(ctx, tailPause) {
			return nil
		}
	}
}

// read reads one answer to its end. open says whether Relay answered.
func (t *tailing) read(ctx context.Context) (open bool, err error) {
	quiet := *t.c
	if t.begun {
		quiet.err = io.Discard // what is wrong was said
	}
	target, err := quiet.admin(t.finding)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := target.Open(ctx, client.Request{Method: http.MethodGet, Path: t.path})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		err := refused(target, resp.StatusCode, bytes.TrimSpace(answer))
		if resp.StatusCode >= http.StatusInternalServerError && t.begun {
			return false, err
		}
		return false, errRefused{err}
	}
	if !t.begun {
		t.begun = true
		if err := t.head(); err != nil {
			return true, err
		}
	}
	silence := time.AfterFunc(tailSilence, func() { cancel(fmt.Errorf("nothing came for %s", tailSilence)) })
	defer silence.Stop()
	err = readEvents(resp.Body, func(name, data string) error {
		silence.Reset(tailSilence)
		return t.event(name, data)
	})
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return true, cause
	}
	return true, err
}

// maxTailLine bounds a line of server-sent events, in bytes.
const maxTailLine = 1 << 20

// readEvents reads server-sent events: see HTML, 9.2.6. A comment is an event without a name.
func readEvents(from io.Reader, each func(name, data string) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxTailLine)
	name, data := "", ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if err := each(name, data); err != nil {
				return err
			}
			name, data = "", ""
		case field == "event":
			name = value
		case field == "data" && data != "":
			data += "\n" + value
		case field == "data":
			data = value
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("it was closed")
}

func (t *tailing) event(name, data string) error {
	switch name {
	case "attempt":
		return t.attempt(data)
	case "lost":
		var lost admin.Lost
		if err := json.Unmarshal([]byte(data), &lost); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		fmt.Fprintf(t.c.err, "relay: %d attempts are left out here, because the reader was too slow\n", lost.Lost)
	case "end":
		return errors.New("it stops")
	}
	return nil
}

func (t *tailing) head() error {
	if t.json {
		return nil
	}
	return t.line("TIME", "OUTCOME", "STATE", "ENDPOINT", "TYPE", "ATTEMPT", "STATUS", "TOOK", "DELIVERY", "CODE")
}

func (t *tailing) attempt(data string) error {
	if t.json {
		_, err := fmt.Fprintf(t.c.out, "%s\n", data)
		return output(err)
	}
	var a admin.AttemptEnded
	if err := json.Unmarshal([]byte(data), &a); err != nil || a.Last == nil {
		return fmt.Errorf("read event %q: %w", data, err)
	}
	return t.line(when(a.Last.Started), a.Outcome, a.State, a.Endpoint, a.Event.Type, attemptsOf(&a.Delivery), statusOf(a.Last.Status), millisOf(a.Last.TookMS), a.ID, a.Code)
}

// line prints a row: with a tab between cells for programs, in columns that fit most cells for people.
func (t *tailing) line(cells ...string) error {
	var table client.Table
	table.Add(cells...)
	if isTerminal(t.c.out) {
		for i, width := range []int{20, 9, 9, 16, 20, 7, 6, 7, 20} {
			table.Rows[0][i] = fmt.Sprintf("%-*s ", width, table.Rows[0][i])
		}
		_, err := fmt.Fprintln(t.c.out, strings.Join(table.Rows[0], " "))
		return output(err)
	}
	_, err := fmt.Fprintln(t.c.out, strings.Join(table.Rows[0], "\t"))
	return output(err)
}

func output(err error) error {
	if err != nil {
		return errOutput{err}
	}
	return nil
}
