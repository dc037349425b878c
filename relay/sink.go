package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/policy/sign"
	"relay/relay/app"
	"relay/relay/sink"
)

func (c *command) sink() *cobra.Command {
	var f struct {
		listen, answer, scheme, endpoint string
		configs, secrets                 []string
		perEvent, body, asJSON           bool
		tolerance                        time.Duration
	}
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Play a receiver: verify signatures, print what comes, answer by a script",
		Long: "Play a receiver. Signatures are verified with --secret (by --scheme), or with all that an\n" +
			"endpoint of a configuration signs with: --config relay.hcl --endpoint billing.\n\n" +
			"--answer is a script, one step per request, the last one for ever: \"503x3,200\" fails three\n" +
			"times and then accepts. Steps: a status, reset, close, hang; suffixes: xCOUNT, @DELAY,\n" +
			":retry-after=SECONDS; a last step \"...\" starts again from the front. A wrong signature is answered\n" +
			"401, which for Relay is a final answer: the delivery is failed.",
		Example: "  relay sink --answer 503x3,200\n  relay sink --secret whsec_... --answer '200@2s'\n  relay sink --scheme github --secret @github.secret\n  relay sink --config relay.hcl --endpoint billing --body",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if f.tolerance < 0 {
				return usageError{errors.New("--tolerance cannot be negative")}
			}
			script, err := sink.ParseScript(f.answer)
			if err != nil {
				return usageError{fmt.Errorf("--answer: %w", err)}
			}
			verifiers, err := c.verifiers(f.scheme, f.secrets, f.configs, f.endpoint)
			if err != nil {
				return err
			}
			print := sink.NewPrinter(c.out, sink.PrintOptions{Color: app.IsTerminal(c.out), Body: f.body, JSON: f.asJSON})
			s := sink.New(sink.Options{
				Script: script, PerEvent: f.perEvent, Verifiers: verifiers, Endpoint: f.endpoint,
				Tolerance: f.tolerance, Observe: print,
			})
			ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
			defer cancel()
			ln, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
			if err != nil {
				return err
			}
			checks := "signatures are not checked: give --secret, or --config and --endpoint"
			if len(verifiers) > 0 {
				checks = "signatures are checked"
			}
			fmt.Fprintf(c.err, "sink on %s; %s; Ctrl-C ends it\n", ln.Addr(), checks)
			if err := sink.Serve(ctx, ln, s); err != nil {
				return err
			}
			t := s.Totals()
			fmt.Fprintf(c.err, "\n%d requests, %d events, %d duplicates", t.Received, t.Events, t.Duplicates)
			if len(verifiers) > 0 {
				fmt.Fprintf(c.err, "; signatures: %d good, %d bad", t.Verified, t.Bad)
			}
			fmt.Fprintln(c.err)
			return nil
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:9000", "`host:port` to receive on")
	cmd.Flags().StringVar(&f.answer, "answer", "200", "script of answers")
	cmd.Flags().BoolVar(&f.perEvent, "per-event", false, "start the script again for each event id")
	cmd.Flags().StringArrayVar(&f.secrets, "secret", nil, "secret to verify with (repeatable: any may match); @FILE reads it from a file")
	cmd.Flags().StringVar(&f.scheme, "scheme", "standard", "built-in signature scheme of --secret: "+strings.Join(sign.BuiltinNames(), ", "))
	cmd.Flags().StringVar(&f.endpoint, "endpoint", "", "verify as this endpoint of the configuration signs")
	cmd.Flags().DurationVar(&f.tolerance, "tolerance", 5*time.Minute, "how far a signature's time may be off")
	cmd.Flags().BoolVar(&f.body, "body", false, "print bodies too")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object per request")
	configFlag(cmd, &f.configs)
	return cmd
}

// verifiers makes verifiers from secrets or from an endpoint of a configuration. Without either,
// signatures are not checked.
func (c *command) verifiers(scheme string, secrets, configs []string, endpoint string) ([]*sign.Verifier, error) {
	switch {
	case endpoint != "" && len(secrets) > 0:
		return nil, usageError{errors.New("--secret and --endpoint exclude each other")}
	case endpoint != "":
		_, p, err := c.load(configs)
		if err != nil {
			return nil, err
		}
		e := p.Endpoint(endpoint)
		if e == nil {
			return nil, usageError{fmt.Errorf("the configuration has no endpoint %q", endpoint)}
		}
		var verifiers []*sign.Verifier
		for _, s := range e.Signers {
			verifiers = append(verifiers, s.Verifier())
		}
		return verifiers, nil
	case len(configs) > 0:
		return nil, usageError{errors.New("--config needs --endpoint")}
	case len(secrets) == 0:
		return nil, nil
	}
	s, ok := sign.Builtin(scheme)
	if !ok {
		return nil, usageError{fmt.Errorf("--scheme %q is not one of %s; for a scheme of your own use --config and --endpoint", scheme, strings.Join(sign.BuiltinNames(), ", "))}
	}
	for i, secret := range secrets {
		if name, isFile := strings.CutPrefix(secret, "@"); isFile {
			b, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("read --secret: %w", err)
			}
			secrets[i] = strings.TrimSpace(string(b))
		}
	}
	v, err := sign.NewVerifier(s, secrets)
	if err != nil {
		return nil, usageError{fmt.Errorf("--secret: %w", err)}
	}
	return []*sign.Verifier{v}, nil
}
