package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relay/policy"
	"relay/policy/sign"
	"relay/relay/client"
)

func (c *command) keys() *cobra.Command {
	var configs []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "keys [FILE]",
		Short: "Print the public keys that receivers verify signatures with",
		Long: "Print the public Ed25519 keys of all endpoints of a configuration. --json prints a JSON Web Key Set\n" +
			"(RFC 7517) to publish, for example at /.well-known/jwks.json. Shared secrets have no public part\n" +
			"and are not listed; nothing secret is printed.",
		Example: "  relay keys\n  relay keys --json > jwks.json",
		Args:    argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, p, err := c.load(append(configs, args...))
			if err != nil {
				return err
			}
			if asJSON {
				return client.JSON(c.out, p.PublicKeys())
			}
			return c.printKeys(p)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON Web Key Set")
	return cmd
}

// printKeys has a line for each key of an endpoint, with the schemes that sign with it.
func (c *command) printKeys(p *policy.Policy) error {
	if len(p.PublicKeys().Keys) == 0 {
		fmt.Fprintln(c.err, "no endpoint signs with an Ed25519 key; one is a secret like whsk_$(openssl rand -base64 32)")
		return nil
	}
	table := client.Table{Header: []string{"ENDPOINT", "SIGNATURES", "KEY ID", "PUBLIC KEY"}}
	for _, e := range p.Endpoints {
		var keys []sign.JWK
		schemes := map[sign.JWK][]string{}
		for _, s := range e.Signers {
			for _, k := range s.PublicKeys() {
				if schemes[k] == nil {
					keys = append(keys, k)
				}
				schemes[k] = append(schemes[k], s.Scheme().Name())
			}
		}
		for _, k := range keys {
			table.Add(e.Name, strings.Join(schemes[k], " "), k.KeyID, k.Prefixed())
		}
	}
	return c.output().Table(&table)
}
