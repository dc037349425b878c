package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/query"
)

func (c *command) deliveries() *cobra.Command {
	var a asking
	var watch bool
	cmd := &cobra.Command{
		Use:   "deliveries [ID]",
		Short: "Find deliveries of a running Relay, or show one with all its attempts",
		Long: "Find deliveries: all conditions must hold, and of a flag that is given more than once one value. With an\n" +
			"ID the delivery is shown whole: every attempt with its phases, what was sent and what came back.\n\n" +
			"Values of signatures and of an endpoint's own headers are not shown. LAST is the HTTP status of the last\n" +
			"attempt, CODE why the delivery is in its state or why the last attempt failed.",
		Example: "  relay deliveries --state failed --since 1h\n  relay deliveries --event evt_0192f5d4c0de7000\n  relay deliveries --endpoint billing --status 5xx --json\n  relay deliveries dlv_17",
		Args:    argRange(0, 1),
	}
	f := filterFlags(cmd, query.Lists)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.watch(watch, func(c *command) error {
			if len(args) > 0 {
				return c.showDelivery(a, args[0])
			}
			return c.findDeliveries(a, f)
		})
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	cmd.AddCommand(c.showOne("delivery", c.showDelivery))
	return c.completing(cmd, "endpoint", f.use)
}

// showOne is the verb show below a verb that lists.
func (c *command) showOne(what string, show func(a asking, id string) error) *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one " + what + " whole",
		Args:  argRange(1, 1),
		RunE:  func(_ *cobra.Command, args []string) error { return show(a, args[0]) },
	}
	askFlags(cmd, &a)
	return cmd
}

// under is the path of one thing below a path.
func under(path, id string) (string, error) {
	if id == "" {
		return "", usageError{errors.New("the id or name is empty")}
	}
	return path + "/" + url.PathEscape(id), nil
}

func (c *command) findDeliveries(a asking, f *filter) error {
	path, err := f.path("/v1/deliveries")
	if err != nil {
		return err
	}
	var list admin.DeliveryList
	return c.show(a, path, &list, func() error {
		if err := printDeliveries(c.output(), list.Items); err != nil {
			return err
		}
		return c.output().Remark(moreOf(len(list.Items), list.Total, list.Next))
	})
}

func printDeliveries(to client.Output, all []admin.Delivery) error {
	table := client.Table{Header: []string{"CREATED", "DELIVERY", "STATE", "ENDPOINT", "TYPE", "EVENT", "ATTEMPTS", "LAST", "CODE", "NEXT"}}
	for i := range all {
		d := &all[i]
		last := ""
		if d.Last != nil {
			last = statusOf(d.Last.Status)
		}
		table.Add(when(d.Created), d.ID, d.State, d.Endpoint, d.Event.Type, d.Event.ID, attemptsOf(d), last, d.Code, nextOf(d))
	}
	return to.Table(&table)
}

// nextOf is the time of the next attempt, and what holds it up.
func nextOf(d *admin.Delivery) string {
	if d.Waits == "" {
		return when(d.NextAttempt)
	}
	return fmt.Sprintf("%s (%s)", when(d.NextAttempt), d.Waits)
}

// attemptsOf is "2/10" where the most is known.
func attemptsOf(d *admin.Delivery) string {
	if d.MaxAttempts == 0 {
		return fmt.Sprint(d.Attempts)
	}
	return fmt.Sprintf("%d/%d", d.Attempts, d.MaxAttempts)
}

// moreOf says how many there are, and how to get the next page.
func moreOf(shown int, total *admin.Total, next *string) string {
	switch {
	case next != nil && total != nil && !uncounted(total):
		return fmt.Sprintf("%d of %s shown; the next page: the same with --cursor %s\n", shown, totalOf(total), *next)
	case next != nil:
		return fmt.Sprintf("%d shown; the next page: the same with --cursor %s\n", shown, *next)
	case shown == 0:
		return "none\n"
	}
	return ""
}

func (c *command) showDelivery(a asking, id string) error {
	path, err := under("/v1/deliveries", id)
	if err != nil {
		return err
	}
	var d admin.DeliveryWhole
	return c.show(a, path, &d, func() error {
		_, err := fmt.Fprint(c.out, deliveryText(&d))
		return err
	})
}

// deliveryText is a delivery for people: its state, then each attempt, then what was sent.
func deliveryText(d *admin.DeliveryWhole) string {
	var b strings.Builder
	e := &d.Event
	fmt.Fprintf(&b, "delivery %s to %s: %s%s\n", d.ID, d.Endpoint, d.State, because(d.Code, d.Error))
	fmt.Fprintf(&b, "event    %s, type %s%s%s, of %s\n", e.ID, e.Type, labelled(", tenant ", e.Tenant), labelled(", key ", e.Key), when(e.Time))
	fmt.Fprintf(&b, "accepted %s%s%s\n", when(d.Created), labelled(", finished ", when(d.Finished)), labelled(", next attempt not before ", nextOf(&d.Delivery)))
	if d.RedeliveryOf != "" {
		fmt.Fprintf(&b, "repeats  %s\n", d.RedeliveryOf)
	}
	if len(d.RedeliveredAs) > 0 {
		fmt.Fprintf(&b, "repeated as %s\n", strings.Join(d.RedeliveredAs, ", "))
	}
	for i := range d.History {
		attemptText(&b, &d.History[i])
	}
	if len(d.History) == 0 {
		fmt.Fprintf(&b, "\nno attempt was made yet\n")
	}
	requestText(&b, d.Request)
	if !d.Erased.IsZero() {
		fmt.Fprintf(&b, "\nthe data was erased at %s\n", when(d.Erased))
	} else {
		fmt.Fprintf(&b, "\ndata\n%s\n", indented(string(d.Payload)))
	}
	if d.Erased.IsZero() || d.State == "held" || d.State == "pending" { // what is erased cannot be sent again
		fmt.Fprintf(&b, "\n%s", nextFor(&d.Delivery))
	}
	return b.String()
}

// nextFor names the verb that helps with a delivery in its state.
func nextFor(d *admin.Delivery) string {
	switch d.State {
	case "pending":
		return "due now: relay retry " + d.ID + "; give up: relay discard " + d.ID + "\n"
	case "held":
		return "why it is held: relay endpoints " + d.Endpoint + "\n"
	case "failed", "discarded":
		return "send it again: relay redeliver " + d.ID + "\n"
	}
	return ""
}

func because(code, why string) string {
	switch {
	case code == "" && why == "":
		return ""
	case code == "" || why == "":
		return " (" + client.Printable(cmp.Or(code, why)) + ")"
	}
	return " (" + code + ": " + client.Printable(why) + ")"
}

// labelled is a text with words before it, "" for "".
func labelled(before, text string) string {
	if text == "" {
		return ""
	}
	return before + client.Printable(text)
}

func attemptText(b *strings.Builder, a *admin.Attempt) {
	manual := ""
	if a.Manual {
		manual = ", by an operator"
	}
	status := "no answer"
	if a.Status != 0 {
		status = fmt.Sprintf("%d %s", a.Status, http.StatusText(a.Status))
	}
	fmt.Fprintf(b, "\nattempt %d  %s  %s in %s: %s%s\n", a.N, a.Started.UTC().Format("2006-01-02T15:04:05.000Z"), strings.TrimSpace(status), millisOf(a.TookMS), a.Outcome, because(a.Code, a.Error))
	fmt.Fprintf(b, "  phases   %s\n", phases(a))
	fmt.Fprintf(b, "  by       relay %s, generation %d of its file%s\n", cmp.Or(a.Relay, "unknown"), a.Generation, manual)
	if !a.NextAttempt.IsZero() {
		fmt.Fprintf(b, "  next     %s\n", when(a.NextAttempt))
	}
	if r := a.Response; r != nil {
		fmt.Fprintf(b, "  response\n")
		headersText(b, r.Headers)
		body := r.Body
		if r.Encoding != "" {
			body = "(" + r.Encoding + ") " + body
		}
		if body != "" {
			fmt.Fprintf(b, "\n%s\n", indented(body))
		}
		if r.Truncated {
			fmt.Fprintf(b, "    (the body was longer)\n")
		}
	}
}

// phases is how long each part of an attempt took, as far as it occurred. What is left of the total is the time
// until the answer was read.
func phases(a *admin.Attempt) string {
	var parts []string
	for _, p := range []struct {
		name string
		ms   float64
	}{{"name", a.Timings.DNS}, {"connect", a.Timings.Connect}, {"TLS", a.Timings.TLS}, {"first byte", a.Timings.FirstByte}} {
		if p.ms > 0 {
			parts = append(parts, p.name+" "+millisOf(p.ms))
		}
	}
	parts = append(parts, "total "+millisOf(a.Timings.Total))
	if a.Peer != "" {
		parts = append(parts, "to "+a.Peer)
	}
	if a.Reused {
		parts = append(parts, "on a connection that had served before")
	}
	return strings.Join(parts, ", ")
}

func headersText(b *strings.Builder, headers []admin.Header) {
	for _, h := range headers {
		fmt.Fprintf(b, "    %s: %s\n", client.Printable(h.Name), client.Printable(h.Value))
	}
}

// indented is a text with each line printable.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		b.WriteString("    " + client.Printable(strings.TrimSuffix(line, "\r")) + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func requestText(b *strings.Builder, r *admin.SentRequest) {
	if r == nil {
		return
	}
	fmt.Fprintf(b, "\nrequest of the last attempt\n    %s %s\n", r.Method, client.Printable(r.URL))
	headersText(b, r.Headers)
	switch {
	case r.Body != nil:
		fmt.Fprintf(b, "\n%s\n", indented(r.Body.Text))
		fmt.Fprintf(b, "    (made again by generation %d of the file)\n", r.Body.Generation)
	case r.Error != "":
		fmt.Fprintf(b, "    (%s)\n", client.Printable(r.Error))
	}
}
