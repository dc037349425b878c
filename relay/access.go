package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) access() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Show what this token may do at a running Relay",
		Long: "Show what the token that verbs send ($RELAY_ADMIN_TOKEN, or the configuration's) may do at a running\n" +
			"Relay: its rights, the tenants and endpoints that it is bound to, and when it ends.",
		Example: "  RELAY_ADMIN_TOKEN=relay_link_… relay access",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			var m admin.Myself
			return c.show(a, "/v1/access", &m, func() error {
				_, err := fmt.Fprint(c.out, accessText(&m))
				return err
			})
		},
	}
	askFlags(cmd, &a)
	return cmd
}

func accessText(m *admin.Myself) string {
	var b strings.Builder
	line := func(name string, values ...string) {
		fmt.Fprintf(&b, "%-10s %s\n", name, client.Printable(strings.Join(values, ", ")))
	}
	line("name", m.Name)
	may := []string{}
	for _, right := range m.May {
		may = append(may, string(right))
	}
	line("may", may...)
	if len(m.Tenants) > 0 {
		line("tenants", m.Tenants...)
	}
	if len(m.Endpoints) > 0 {
		line("endpoints", m.Endpoints...)
	}
	if m.Whole {
		line("bound to", "nothing: all tenants and endpoints, and the whole process")
	}
	if m.Expires != nil {
		line("ends", when(*m.Expires))
	}
	return b.String()
}
