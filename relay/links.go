package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

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
			"file; taking that key out revokes all that were made with it. Its id takes one back: relay links revoke.",
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
			table := client.Table{Header: []string{"ID", "TENANT", "EXPIRES", "TOKEN"}}
			table.Add(link.ID, link.Tenant, when(link.Expires), link.Token)
			if err := c.output().Table(&table); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "\n%s\n", pageOf(t, &link))
			return err
		},
	}
	cmd.AddCommand(c.revokeLinks())
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&ask.Tenant, "tenant", "", "`tenant` of the link")
	cmd.Flags().StringSliceVar(&ask.May, "may", nil, "`rights`: read, payload, secrets, test, redeliver, endpoints; read by default")
	cmd.Flags().StringVar(&ask.For, "for", "", "who gets it, a `text` of 1 to 100 characters that the audit shows")
	cmd.Flags().StringVar(&ask.TTL, "ttl", "", "how long it holds, a `duration` from 1m to 30d; 1h by default")
	return cmd
}

func (c *command) revokeLinks() *cobra.Command {
	var a asking
	var tenant, who string
	cmd := &cobra.Command{
		Use:   "revoke [ID]",
		Short: "Take one link back, or all of a tenant",
		Long: "Take one link back, by its id or the link itself; or with --tenant all that were made for a tenant until now, and with --for\n" +
			"those of them that were made for somebody. Sessions that it began end, too. The audit has the ids: relay audit --verb link.",
		Example: "  relay links revoke UA3DVWPXWZP2ERMQ\n  relay links revoke --tenant acme --for \"Ann, ticket 17\"",
		Args:    argRange(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && who == "" {
				return usageError{errors.New("--for is empty: leave it out to take back all links of the tenant")}
			}
			path, err := revokedPath(args, tenant, who)
			if err != nil {
				return err
			}
			t, err := c.admin(a.finding)
			if err != nil {
				return err
			}
			var revoked admin.LinksRevoked
			text, err := question{method: http.MethodDelete, path: path}.ask(t, nil, &revoked)
			switch {
			case err != nil:
				return err
			case a.json:
				return client.JSON(c.out, text)
			}
			what := "link " + revoked.ID
			if revoked.ID == "" {
				what = "all links of the tenant " + client.Printable(revoked.Tenant) + " that were made until now"
			}
			if revoked.For != "" {
				what += " for " + client.Printable(revoked.For)
			}
			_, err = fmt.Fprintln(c.out, "taken back: "+what)
			return err
		},
	}
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&tenant, "tenant", "", "`tenant` whose links are taken back")
	cmd.Flags().StringVar(&who, "for", "", "who they were made for, in the same `text`; all of the tenant by default")
	return cmd
}

// revokedPath is the address of what is taken back. A link is not sent, as addresses land in logs: only its id.
func revokedPath(args []string, tenant, who string) (string, error) {
	switch {
	case len(args) == 1 && (tenant != "" || who != ""):
		return "", usageError{fmt.Errorf("a link, or --tenant: not both")}
	case len(args) == 1:
		id := args[0]
		if at := strings.Index(id, admin.LinkPrefix); at >= 0 { // the link, or its address
			if id = admin.IDOfLink(id[at:]); id == "" {
				return "", usageError{fmt.Errorf("this link is cut, or of an earlier version and has no id: take back all of the tenant, with --tenant")}
			}
		}
		return under("/v1/links", id)
	case tenant == "":
		return "", usageError{fmt.Errorf("the id of a link is needed, or --tenant")}
	}
	q := url.Values{"tenant": {tenant}}
	if who != "" {
		q.Set("for", who)
	}
	return "/v1/links?" + q.Encode(), nil
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
