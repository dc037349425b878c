package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/client"
)

func (c *command) diff() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what a change of the configuration means",
		Long: "Say what the configuration NEW (a file, or a folder of *.hcl files) means to a Relay that runs\n" +
			"with OLD: for each endpoint, and for the process, which has to start again for its blocks. A\n" +
			"change of a policy is shown at every endpoint that it reaches. Both are read with this\n" +
			"environment. No outbox is read; values of secrets and headers are compared and not shown.",
		Example: "  git show HEAD:relay.hcl > old.hcl && relay diff old.hcl relay.hcl",
		Args:    argRange(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			oldFile, oldPolicy, errOld := c.load(args[:1])
			newFile, newPolicy, errNew := c.load(args[1:])
			if errOld != nil {
				return errOld
			}
			if errNew != nil {
				return errNew
			}
			restart := config.NeedRestart(oldFile.Config, newFile.Config)
			d := compared{Endpoints: []comparedEndpoint{}, Types: policy.DiffTypes(oldPolicy, newPolicy), Restart: restart, Process: []comparedSetting{}}
			for _, e := range policy.Diff(oldPolicy, newPolicy) {
				d.Endpoints = append(d.Endpoints, compareEndpoint(e, newPolicy.Endpoint(e.Endpoint)))
			}
			for _, s := range config.Diff(oldFile.Config, newFile.Config) {
				d.Process = append(d.Process, comparedSetting{s, processMeaning(s)})
			}
			if asJSON {
				return client.JSON(c.out, d)
			}
			return printCompared(c.out, d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// compared is the output of `relay diff`.
type compared struct {
	Endpoints []comparedEndpoint  `json:"endpoints"`
	Types     []policy.TypeChange `json:"event_types"`
	Process   []comparedSetting   `json:"process"`
	Restart   []string            `json:"restart"` // blocks that need one
}

type comparedEndpoint struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"` // added, removed, changed
	Means    string            `json:"means,omitempty"`
	Settings []comparedSetting `json:"settings,omitempty"`
}

type comparedSetting struct {
	config.Change
	Means string `json:"means,omitempty"`
}

// compareEndpoint describes the effect of a change; now is the endpoint, nil if it is removed.
func compareEndpoint(c policy.Change, now *policy.Endpoint) comparedEndpoint {
	out := comparedEndpoint{Name: c.Endpoint, Kind: c.Kind}
	switch {
	case c.Kind == policy.Removed:
		out.Means = "it gets no more events; its pending deliveries will be held"
	case c.Kind == policy.Added && !now.Enabled:
		out.Means = fmt.Sprintf("it gets events that are accepted from then on (%s), and they are held: enabled = false", now.Show("events", now.Events.String()))
	case c.Kind == policy.Added:
		out.Means = fmt.Sprintf("it gets events that are accepted from then on (%s), at %s", now.Show("events", now.Events.String()), now.ShownURL())
	}
	for _, s := range c.Settings {
		out.Settings = append(out.Settings, comparedSetting{s, endpointMeaning(s)})
	}
	return out
}

// endpointMeaning describes the effect of a changed setting that its values do not show: which
// deliveries it affects.
func endpointMeaning(s config.Change) string {
	switch block, _, _ := strings.Cut(s.Name, "."); {
	case s.Name == "url":
		return "pending deliveries go to the new one, too"
	case s.Name == "enabled" && s.New == "false":
		return "its deliveries are accepted and held"
	case s.Name == "enabled":
		return "what was held goes out"
	case s.Name == "events":
		return "decides about events that are accepted from then on; pending deliveries stay"
	case s.Name == "retry.schedule":
		return "due times that are set stay, and attempts that were made count"
	case s.Name == "retry.max_age":
		return "of pending deliveries too"
	case block == "tls":
		return "from the next attempt on: connections are made again"
	case block == "sign" || block == "signature" || block == "secrets" || block == "headers":
		return "from the next attempt on, of pending deliveries too"
	}
	return ""
}

func processMeaning(s config.Change) string {
	switch s.Name {
	case "outbox", "outbox.path", "outbox.server", "outbox.namespace":
		if s.Unseen {
			return ""
		}
		return "what is pending in the old outbox stays there, until a Relay is started with it"
	}
	return ""
}

func printCompared(to io.Writer, d compared) error {
	var b bytes.Buffer
	for _, e := range d.Endpoints {
		fmt.Fprintf(&b, "endpoint %s: %s", e.Name, e.Kind)
		if e.Means != "" {
			fmt.Fprintf(&b, ": %s", e.Means)
		}
		b.WriteByte('\n')
		printSettings(&b, e.Settings)
	}
	for _, t := range d.Types {
		fmt.Fprintf(&b, "event_type %s: %s\n", t.Type, t.Kind)
	}
	if len(d.Process)+len(d.Restart) > 0 {
		b.WriteString("process: ")
		if len(d.Restart) > 0 {
			fmt.Fprintf(&b, "needs a restart for %s\n", strings.Join(d.Restart, ", "))
		} else {
			b.WriteString("changed\n")
		}
		printSettings(&b, d.Process)
	}
	if b.Len() == 0 {
		fmt.Fprintln(&b, "the same: Relay would do nothing else")
	}
	_, err := b.WriteTo(to)
	return err
}

func printSettings(b *bytes.Buffer, settings []comparedSetting) {
	for _, s := range settings {
		b.WriteString("  " + settingText(s.Change))
		if s.Means != "" {
			b.WriteString("; " + s.Means)
		}
		b.WriteByte('\n')
	}
}

// settingText is a text like "concurrency: 16 → 4", or only that the setting changed if its
// values are not shown.
func settingText(c config.Change) string {
	header, isHeader := strings.CutPrefix(c.Name, "headers.")
	switch {
	case isHeader && c.Unseen:
		return fmt.Sprintf("header %s: its value changed", header)
	case isHeader && c.Old == "":
		return fmt.Sprintf("header %s: added", header)
	case isHeader:
		return fmt.Sprintf("header %s: removed", header)
	case c.Name == "secrets":
		return fmt.Sprintf("secrets changed (%s → %s)", c.Old, c.New)
	case c.Unseen && c.Name == "url":
		return fmt.Sprintf("url: its query changed, which is not shown (%s)", c.New)
	case c.Unseen:
		return c.Name + " changed"
	case c.Old == "":
		return fmt.Sprintf("%s: none → %s", c.Name, c.New)
	case c.New == "":
		return fmt.Sprintf("%s: %s → none", c.Name, c.Old)
	}
	return fmt.Sprintf("%s: %s → %s", c.Name, c.Old, c.New)
}
