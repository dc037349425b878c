package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/client"
)

func (c *command) types() *cobra.Command {
	var configs []string
	var asJSON, asMarkdown bool
	cmd := &cobra.Command{
		Use:   "types [TYPE]",
		Short: "List the event types of the file, for those who receive them",
		Long: "List the event types that the file declares: what each means, and the fields of its data as its\n" +
			"schema tells them. With --markdown it is a page for receivers; JSON has the schemas whole.",
		Example: "  relay types --markdown > docs/webhooks.md",
		Args:    argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if asJSON && asMarkdown {
				return usageError{errors.New("--json and --markdown exclude each other")}
			}
			_, p, err := c.load(configs)
			if err != nil {
				return err
			}
			list, err := listTypes(p, args)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return client.JSON(c.out, map[string]any{"types": list})
			case asMarkdown:
				_, err := io.WriteString(c.out, typesPage(list))
				return err
			}
			return printTypes(c.out, list)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asMarkdown, "markdown", false, "print a page in Markdown")
	return cmd
}

// listedType is an event type as `relay types` shows it.
type listedType struct {
	Type        string          `json:"type"`
	Description string          `json:"description"`
	Fields      []policy.Field  `json:"fields"` // of the data; none without a schema
	Example     json.RawMessage `json:"example,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
}

// listTypes lists the type that args name, or all.
func listTypes(p *policy.Policy, args []string) ([]listedType, error) {
	list := []listedType{}
	var names []string
	for _, t := range p.Types {
		names = append(names, t.Name)
		if len(args) > 0 && t.Name != args[0] {
			continue
		}
		l := listedType{Type: t.Name, Description: t.Description, Fields: []policy.Field{}, Example: t.Example}
		if t.Schema != nil {
			l.Fields, l.Schema = t.Schema.Fields(), t.Schema.Text()
		}
		list = append(list, l)
	}
	if len(args) > 0 && len(list) == 0 {
		return nil, fmt.Errorf("the configuration has no event_type %q.%s", args[0], config.Suggest(args[0], names))
	}
	return list, nil
}

func printTypes(to io.Writer, list []listedType) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if len(list) == 0 {
		fmt.Fprintln(w, "the file declares no event types: any will do")
	}
	for i, t := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, strings.TrimSuffix(t.Type+": "+oneLine(t.Description), ": "))
		if len(t.Fields) > 0 {
			fmt.Fprintln(w, "  FIELD\tTYPE\tREQUIRED\tDESCRIPTION")
		}
		for _, f := range t.Fields {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", fieldName(f), f.Type, yesNo(f.Required), cmp.Or(oneLine(f.Description), "-"))
		}
		if t.Example != nil {
			fmt.Fprintf(w, "  example: %s\n", t.Example)
		}
	}
	return w.Flush()
}

// typesPage is a page in Markdown.
func typesPage(list []listedType) string {
	var b strings.Builder
	b.WriteString("# Event types\n")
	for _, t := range list {
		fmt.Fprintf(&b, "\n## `%s`\n", t.Type)
		if t.Description != "" {
			fmt.Fprintf(&b, "\n%s\n", t.Description)
		}
		if len(t.Fields) > 0 {
			b.WriteString("\n| field | type | required | description |\n|---|---|---|---|\n")
		}
		for _, f := range t.Fields {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", cell(fieldName(f)), cell(f.Type), yesNo(f.Required), cell(f.Description))
		}
		if t.Example != nil {
			var indented bytes.Buffer
			if err := json.Indent(&indented, t.Example, "", "  "); err != nil {
				panic(err) // it was parsed as JSON
			}
			fmt.Fprintf(&b, "\n```json\n%s\n```\n", indented.String())
		}
	}
	return b.String()
}

// fieldName is a field's name, or a placeholder for data that is not an object.
func fieldName(f policy.Field) string {
	if f.Name == "" {
		return "(data)"
	}
	return f.Name
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// oneLine joins lines, so that they fit into a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// cell is text escaped for a cell of a Markdown table.
func cell(s string) string { return strings.ReplaceAll(oneLine(s), "|", `\|`) }
