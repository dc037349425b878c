package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) redeliver() *cobra.Command {
	return c.action(action{
		verb: "redeliver", short: "Send the event of a delivery again, or those of all deliveries of a filter",
		long: "Each is a new delivery with its whole schedule; the old one stays as it is. Without --state those that\n" +
			"failed. It never goes faster than the limits of the endpoints. --to sends to another endpoint.\n\n" +
			"With a filter an event goes once to an endpoint, however many deliveries of it match (SKIPPED: repeat), and\n" +
			"not where another delivery of it is pending (on_its_way) or was delivered since (delivered_since). With\n" +
			"--state delivered events are sent again that arrived.",
		example: "  relay redeliver dlv_17\n  relay redeliver --endpoint billing --since 2h --dry-run\n  relay redeliver --endpoint billing --since 2h --rate 50 --yes",
		does:    "send the events of %s again", path: "/v1/redeliveries", to: true,
		one: func(t client.Target, id string, o bulkOptions) ([]byte, string, error) {
			body := admin.RedeliveryRequest{To: o.to}
			var r admin.Redelivery
			path, _ := under("/v1/deliveries", id)
			text, err := question{method: http.MethodPost, path: path + "/redeliver"}.ask(t, body, &r)
			return text, fmt.Sprintf("%s repeats %s to %s; see it: relay deliveries %[1]s\n", r.ID, r.RedeliveryOf, r.Endpoint) + warned(r.Warning), err
		},
	})
}

func (c *command) retry() *cobra.Command {
	return c.action(action{
		verb: "retry", short: "Make a pending delivery due now, or all pending ones of a filter",
		long:    "Limits, breaker and pause of their endpoints still hold: relay resume and relay enable end those.",
		example: "  relay retry dlv_17\n  relay retry --endpoint billing",
		does:    "make %s due now", path: "/v1/retries",
		one: changeDelivery("retry", "is due now", "was due already"),
	})
}

func (c *command) discard() *cobra.Command {
	return c.action(action{
		verb: "discard", short: "End a pending delivery without an attempt, or all pending ones of a filter",
		long:    "They are kept as discarded, and relay redeliver sends their events again.",
		example: "  relay discard dlv_17\n  relay discard --endpoint gone --yes",
		does:    "end %s without an attempt", path: "/v1/discards",
		one: changeDelivery("discard", "is discarded", "was discarded already"),
	})
}

// changeDelivery is a route that changes one delivery.
func changeDelivery(verb, done, unchanged string) func(client.Target, string, bulkOptions) ([]byte, string, error) {
	return func(t client.Target, id string, _ bulkOptions) ([]byte, string, error) {
		var d admin.DeliveryChanged
		path, _ := under("/v1/deliveries", id)
		text, err := question{method: http.MethodPost, path: path + "/" + verb}.ask(t, nil, &d)
		if d.Unchanged {
			done = unchanged
		}
		return text, fmt.Sprintf("%s to %s %s%s\n", d.ID, d.Endpoint, done, waiting(&d)), err
	}
}

// waiting says why a delivery that is due stays where it is.
func waiting(d *admin.DeliveryChanged) string {
	end := map[string]string{"paused": "relay resume", "disabled": "relay enable"}[d.Waits]
	switch {
	case d.State != "held":
		return ""
	case end == "":
		return fmt.Sprintf(", but held: the endpoint is %s", d.Waits)
	}
	return fmt.Sprintf(", but held: the endpoint is %s; %s %s lets it go", d.Waits, end, d.Endpoint)
}

// warned is a line of its own for a warning, "" for none.
func warned(warning string) string {
	if warning == "" {
		return ""
	}
	return "note: " + client.Printable(warning) + "\n"
}

func (c *command) erase() *cobra.Command {
	return c.action(action{
		verb: "erase", short: "Erase the data of an event for good, or of the events of all deliveries of a filter",
		long: "Payload, indexed fields, and requests and answers of its attempts are gone; records and counts stay.\n" +
			"It is refused while a delivery is pending, unless forced. Events without a delivery are erased one by one.",
		example: "  relay erase evt_0192f5d4c0de7000\n  relay erase --tenant acme --until 30d --dry-run",
		does:    "erase the data of the events of %s for good", path: "/v1/erasures", force: true,
		one: func(t client.Target, id string, o bulkOptions) ([]byte, string, error) {
			path, _ := under("/v1/events", id)
			path += "/data"
			if o.force {
				path += "?force=true"
			}
			var e admin.Erasure
			text, err := question{method: http.MethodDelete, path: path}.ask(t, nil, &e)
			done := "is erased"
			if e.Unchanged {
				done = "was erased at " + when(e.Erased)
			}
			return text, fmt.Sprintf("the data of %s %s\n", e.ID, done), err
		},
	})
}
