package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/ingest/problem"
	"relay/relay/admin"
	"relay/relay/client"
)

// asking has the flags of a verb that shows what a running Relay answers.
type asking struct {
	finding
	json bool
}

// askFlags adds them.
func askFlags(cmd *cobra.Command, a *asking) {
	adminFlags(cmd, &a.finding)
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON, in the shape of the admin API")
}

// question is a request to the admin listener, without its body.
type question struct {
	method, path string
	header       http.Header // may be nil
}

// ask sends the question with a JSON body, unless that is nil, and reads the answer into out, unless that is
// nil. It returns the text of the answer, too.
func (q question) ask(t client.Target, body, out any) (json.RawMessage, error) {
	r := client.Request{Method: q.method, Path: q.path, Header: q.header.Clone()}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("make request: %w", err)
		}
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("Content-Type", "application/json")
	}
	code, answer, err := t.Do(r)
	if err != nil {
		return nil, err
	}
	if code < 200 || code > 299 {
		return nil, refused(t, code, answer)
	}
	if out == nil || len(answer) == 0 {
		return answer, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return nil, fmt.Errorf("read answer of %s (%d bytes): %w", q.path, len(answer), err)
	}
	return answer, nil
}

// show asks, and prints the answer: as JSON, or as print does.
func (c *command) show(a asking, path string, out any, print func() error) error {
	t, err := c.admin(a.finding)
	if err != nil {
		return err
	}
	text, err := question{method: http.MethodGet, path: path}.ask(t, nil, out)
	switch {
	case err != nil:
		return err
	case a.json:
		return client.JSON(c.out, text)
	}
	return print()
}

// refused is the error of an answer that is not 2xx. A bad value is wrong usage, and routes
// that the answer names are replaced by their verbs.
func refused(t client.Target, code int, answer []byte) error {
	err := errors.New(verbsFor(t.AdminRefusal(code, answer).Error()))
	var p problem.Problem
	if json.Unmarshal(answer, &p) != nil {
		return err
	}
	switch {
	case p.Code == problem.InvalidEndpoint && len(p.Diagnostics) > 1:
		return fmt.Errorf("refused: %s", strings.Join(p.Diagnostics, "\n"))
	case p.Code == problem.EmptyFilter:
		return usageError{errors.New("the filter selects every delivery: name a condition, like --endpoint, --state or --since; --until 0s selects all that there are")}
	case code != http.StatusBadRequest:
		return err
	case p.Field != "":
		return usageError{fmt.Errorf("--%s: %s", flagOf(p.Field), verbsFor(p.Detail))}
	}
	return usageError{err}
}

// routes are those that a refusal may name.
var routes = regexp.MustCompile(`\b(GET|POST|PUT|PATCH|DELETE) (/v1/[a-z/{}]+)`)

// verbsFor replaces routes of the admin API by their verbs, as its document has them.
func verbsFor(text string) string {
	text = strings.NewReplacer("with force=true", "with --force", "force=true ", "--force ", "; attempted_since", "; --attempted-since").Replace(text)
	if !routes.MatchString(text) {
		return text
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if json.Unmarshal(admin.Document(version), &document) != nil {
		return text
	}
	return routes.ReplaceAllStringFunc(text, func(route string) string {
		method, path, _ := strings.Cut(route, " ")
		var operation struct {
			Verb string `json:"x-verb"`
		}
		_ = json.Unmarshal(document.Paths[path][strings.ToLower(method)], &operation)
		if operation.Verb == "" {
			return route
		}
		return operation.Verb
	})
}

// watchEvery is how often --watch asks.
const watchEvery = 2 * time.Second

// watchFlag adds --watch.
func watchFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVarP(to, "watch", "w", false, "ask again every 2 s until Ctrl-C, and show what is then")
}

// watch calls show once, or with --watch until an interrupt. On a terminal each answer replaces the
// one before. A Relay that does not answer for a while ends nothing.
func (c *command) watch(on bool, show func(c *command) error) error {
	if !on {
		return show(c)
	}
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	to := c.output()
	for first := true; ; first = false {
		var screen strings.Builder
		frame := *c
		frame.out = terminal{&screen, to.Terminal}
		err := show(&frame)
		if err != nil && first {
			return err
		}
		if err != nil {
			fmt.Fprintf(&screen, "relay: %v\n", err)
		}
		clear := ""
		if to.Terminal {
			clear = "\x1b[H\x1b[2J"
		} else if !first {
			clear = "\n"
		}
		if _, err := io.WriteString(c.out, clear+screen.String()); err != nil {
			return err
		}
		if !wait(ctx, watchEvery) {
			return nil
		}
	}
}

// terminal is a part of what is written to the output later, and tells what that is.
type terminal struct {
	io.Writer
	is bool
}

// confirm asks a person for a yes. Without a terminal nobody can answer.
func (c *command) confirm(question string) error {
	if !isTerminal(c.in) {
		return usageError{fmt.Errorf("%s Say so with --yes, or look first with --dry-run", question)}
	}
	fmt.Fprintf(c.err, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(c.in, &answer) // none is a no
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// Cells of tables.

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

func millisOf(ms float64) string {
	switch d := time.Duration(ms * float64(time.Millisecond)); {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	default:
		return fmt.Sprintf("%.3gms", ms)
	}
}

func totalOf(t *admin.Total) string {
	switch {
	case t == nil:
		return ""
	case uncounted(t):
		return "unknown"
	case t.AtLeast:
		return fmt.Sprintf("at least %d", t.N)
	}
	return fmt.Sprint(t.N)
}

func statusOf(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprint(status)
}
