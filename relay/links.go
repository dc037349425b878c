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
		Example: "  relay links --tenant acme --may read,redeliver --ttl 2h",
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
			text, err := request(t, http.MethodPost, "/v1/links", ask, &link)
			switch {
			case err != nil:
				return err
			case a.json:
				return client.JSON(c.out, text)
			}
			table := client.Table{Header: []string{"TENANT", "EXPIRES", "TOKEN"}}
			table.Add(link.Tenant, when(link.Expires), link.Token)
			return c.output().Table(&table)
		},
	}
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&ask.Tenant, "tenant", "", "`tenant` of the link")
	cmd.Flags().StringSliceVar(&ask.May, "may", nil, "`rights`: read, payload, secrets, test, redeliver, endpoints; read by default")
	cmd.Flags().StringVar(&ask.TTL, "ttl", "", "how long it holds, a `duration` from 1m to 30d; 1h by default")
	return cmd
}
