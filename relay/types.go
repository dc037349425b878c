package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) types() *cobra.Command {
	var find finding
	var asJSON, asMarkdown, running bool
	cmd := &cobra.Command{
		Use:   "types [TYPE]",
		Short: "List the event types of the file, for those who receive them",
		Long: "List the event types that the file declares: what each means, and the fields of its data as its\n" +
			"schema tells them. With --markdown it is a page for receivers; JSON has the schemas whole.\n\n" +
			"--running asks the Relay that runs, by the file that it has.",
		Example: "  relay types --markdown > docs/webhooks.md",
		Args:    argRange(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if asJSON && asMarkdown {
				return usageError{errors.New("--json and --markdown exclude each other")}
			}
			list, err := c.typesOf(find, running)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if list, err = named(list, args[0]); err != nil {
					return err
				}
			}
			switch {
			case asJSON:
				return client.JSON(c.out, list)
			case asMarkdown:
				_, err := io.WriteString(c.out, typesPage(list.Types))
				return err
			}
			return printTypes(c.out, list.Types)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&running, "running", false, "ask the Relay that runs, which --admin finds")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asMarkdown, "markdown", false, "print a page in Markdown")
	return cmd
}

// named leaves the type of that name.
func named(list admin.TypeList, name string) (admin.TypeList, error) {
	var names []string
	for _, t := range list.Types {
		if t.Type == name {
			return admin.TypeList{Types: []admin.EventType{t}}, nil
		}
		names = append(names, t.Type)
	}
	return admin.TypeList{}, fmt.Errorf("the configuration has no event_type %q.%s", name, config.Suggest(name, names))
}

// typesOf are those of the file, or of the one that a Relay runs with.
func (c *command) typesOf(find finding, running bool) (list admin.TypeList, err error) {
	if running {
		t, err := c.admin(find)
		if err != nil {
			return list, err
		}
		_, err = question{method: http.MethodGet, path: "/v1/types"}.ask(t, nil, &list)
		return list, err
	}
	file, p, err := c.load(find.configs)
	if err != nil {
		return list, err
	}
	list = admin.TypesOf(p)
	list.Index = admin.IndexesOf(file.Config.Ingest.Index, p)
	return list, nil
}

func printTypes(to io.Writer, list []admin.EventType) error {
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
func typesPage(list []admin.EventType) string {
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
