package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
	"relay/relay/registry"
)

func (c *command) secret() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Read or rotate the secrets of an endpoint that was made at run time",
		Long: "Read or rotate the secrets of an endpoint that was made at run time. Both are written into the audit. Secrets of\n" +
			"the file's endpoints are changed there.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.showSecret(), c.rotateSecret())
	return cmd
}

func (c *command) showSecret() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Print the secrets of an endpoint that was made at run time, the newest first",
		Args:  argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			var s registry.Secrets
			return c.show(a, path+"/secret", &s, func() error { return c.printSecrets(&s) })
		},
	}
	askFlags(cmd, &a)
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}

func (c *command) printSecrets(s *registry.Secrets) error {
	table := client.Table{Header: []string{"SECRET", "SIGNS UNTIL"}}
	public := slices.ContainsFunc(s.Secrets, func(x registry.Secret) bool { return x.Public != "" })
	if public {
		table.Header = append(table.Header, "PUBLIC KEY")
	}
	for _, x := range s.Secrets {
		row := []string{x.Secret, when(x.Until)}
		if public {
			row = append(row, x.Public)
		}
		table.Add(row...)
	}
	return c.output().Table(&table)
}

func (c *command) rotateSecret() *cobra.Command {
	var a asking
	var overlap, file string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give an endpoint that was made at run time a new secret, and print it",
		Long: "Give an endpoint that was made at run time a new secret, and print it. The old ones sign along for the overlap, so that\n" +
			"the receiver can change over without a gap.",
		Example: "  relay secret rotate shop --overlap 2d",
		Args:    argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			body := admin.Rotation{Overlap: overlap}
			if file != "" {
				text, err := c.input([]string{file})
				if err != nil {
					return fmt.Errorf("read --secret: %w", err)
				}
				if !strings.HasPrefix(file, "@") && file != "-" {
					return usageError{fmt.Errorf("--secret is @FILE or -: on the command line others would see it")}
				}
				body.Secret = strings.TrimSpace(string(text))
			}
			t, err := c.admin(a.finding)
			if err != nil {
				return err
			}
			var s registry.Secrets
			text, err := question{method: http.MethodPost, path: path + "/secret/rotate"}.ask(t, body, &s)
			switch {
			case err != nil:
				return err
			case a.json:
				return client.JSON(c.out, text)
			}
			return c.printSecrets(&s)
		},
	}
	askFlags(cmd, &a)
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long the old ones sign along, a `duration` up to 7d; 24h by default")
	cmd.Flags().StringVar(&file, "secret", "", "the new secret, from @`file` or - for standard input; made by default")
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}
