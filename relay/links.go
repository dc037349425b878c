package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) links() *cobra.Command {
	var a asking
	var ask admin.LinkRequest
	cmd := &cobra.Command{
		Use:   "links",
		Short: "Make access to a running Relay for one tenant, that ends by itself",
		Long: "Make access to a running Relay for one tenant, that ends by itself: a bearer token of the\n" +
			"admin API. Anybody who has it has the rights: hand it over like a password. It is made with link_key of the\n" +
			"file; taking that key out revokes all that were made with it.",
		Example: "  relay links --tenant acme --may read,redeliver --ttl 2h --for \"Ann, ticket 17\"",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if ask.Tenant == "" {
				return usageError{fmt.Errorf("--tenant is needed: whose deliveries the link shows")}
			}
			t, err := c.admin(a.finding)
			if err != nil {
				return err
			}
			var link admin.Link
			text, err := question{method: http.MethodPost, path: "/v1/links"}.ask(t, ask, &link)
			if err == nil && link.Warning != "" {
				fmt.Fprintln(c.err, "relay: warning: "+client.Printable(link.Warning))
			}
			switch {
			case err != nil:
				return err
			case a.json:
				return client.JSON(c.out, text)
			}
			table := client.Table{Header: []string{"TENANT", "EXPIRES", "TOKEN"}}
			table.Add(link.Tenant, when(link.Expires), link.Token)
			if err := c.output().Table(&table); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "\n%s\n", pageOf(t, &link))
			return err
		},
	}
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&ask.Tenant, "tenant", "", "`tenant` of the link")
	cmd.Flags().StringSliceVar(&ask.May, "may", nil, "`rights`: read, payload, secrets, test, redeliver, endpoints; read by default")
	cmd.Flags().StringVar(&ask.For, "for", "", "who gets it, a `text` of 1 to 100 characters that the audit shows")
	cmd.Flags().StringVar(&ask.TTL, "ttl", "", "how long it holds, a `duration` from 1m to 30d; 1h by default")
	return cmd
}

// pageOf tells where the page is that a link opens.
func pageOf(t client.Target, link *admin.Link) string {
	for _, a := range t.Addrs {
		if a.Network == "tcp" {
			return "page: http://" + a.Address + link.Path
		}
	}
	return "page: " + link.Path + " at the address by which customers reach the admin listener (http in the block admin)"
}
