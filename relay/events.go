package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/query"
)

func (c *command) events() *cobra.Command {
	var a asking
	var watch bool
	cmd := &cobra.Command{
		Use:   "events [ID]",
		Short: "Find events of a running Relay, or show one with its data and deliveries",
		Long: "Find the events of deliveries: a page of deliveries, grouped by event. With an ID the event is shown\n" +
			"whole: when and how it was accepted, its data, its deliveries. An event that no endpoint wanted has no\n" +
			"delivery, and is found by its ID only.\n\n" +
			"--json of a list has the deliveries, in the shape of the admin API.",
		Example: "  relay events --type 'invoice.*' --since 1h\n  relay events evt_0192f5d4c0de7000",
		Args:    argRange(0, 1),
	}
	f := filterFlags(cmd, query.Lists)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.watch(watch, func(c *command) error {
			if len(args) > 0 {
				return c.showEvent(a, args[0])
			}
			return c.findEvents(a, f)
		})
	}
	askFlags(cmd, &a)
	watchFlag(cmd, &watch)
	cmd.AddCommand(c.showOne("event", c.showEvent))
	return c.completing(cmd, "endpoint", f.use)
}

func (c *command) findEvents(a asking, f *filter) error {
	path, err := f.path("/v1/deliveries")
	if err != nil {
		return err
	}
	var list admin.DeliveryList
	return c.show(a, path, &list, func() error {
		table := client.Table{Header: []string{"TIME", "EVENT", "TYPE", "TENANT", "KEY", "DELIVERIES"}}
		states := map[string][]string{} // endpoints with their states, by event
		var order []admin.EventRef
		for i := range list.Items {
			d := &list.Items[i]
			if states[d.Event.ID] == nil {
				order = append(order, d.Event)
			}
			states[d.Event.ID] = append(states[d.Event.ID], d.Endpoint+" "+d.State)
		}
		for _, e := range order {
			table.Add(when(e.Time), e.ID, e.Type, e.Tenant, e.Key, strings.Join(states[e.ID], ", "))
		}
		if err := c.output().Table(&table); err != nil {
			return err
		}
		text := moreOf(len(list.Items), list.Total, list.Next)
		if list.Next != nil {
			text = "deliveries: " + text
		}
		return c.output().Remark(text)
	})
}

func (c *command) showEvent(a asking, id string) error {
	path, err := under("/v1/events", id)
	if err != nil {
		return err
	}
	var e admin.EventWhole
	return c.show(a, path, &e, func() error {
		var b strings.Builder
		fmt.Fprintf(&b, "event    %s, type %s%s%s, of %s\n", e.ID, e.Type, labelled(", tenant ", e.Tenant), labelled(", key ", e.Key), when(e.Time))
		fmt.Fprintf(&b, "accepted %s%s%s\n", when(e.Accepted), labelled(" over ", e.Via), labelled(" by relay ", e.Relay))
		if e.Trace != "" {
			fmt.Fprintf(&b, "trace    %s\n", client.Printable(e.Trace))
		}
		if e.Erased.IsZero() {
			fmt.Fprintf(&b, "\ndata\n%s\n\n", indented(string(e.Data)))
		} else {
			fmt.Fprintf(&b, "\nthe data was erased at %s\n\n", when(e.Erased))
		}
		if _, err := fmt.Fprint(c.out, b.String()); err != nil {
			return err
		}
		if e.Unwanted {
			_, err := fmt.Fprintln(c.out, "no endpoint wanted it when it was accepted: relay explain --running says why, for an event like it")
			return err
		}
		if err := printDeliveries(c.output(), e.Deliveries); err != nil {
			return err
		}
		return c.output().Remark("what was sent and what came back: relay deliveries ID\n")
	})
}
