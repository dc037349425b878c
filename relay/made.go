package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

// settingFlags are the settings of an endpoint made at run time.
type settingFlags struct {
	url, description string
	events, set      []string
	unset            []string
}

const aboutSettings = "Settings have the names of the file's attributes: --set timeout.total=10s, --set 'retry={\"schedule\":[\"1m\",\"1h\"]}',\n" +
	"--set labels.project=web. A value is JSON, or else a text. @FILE has all of them as a JSON object, - reads it from\n" +
	"standard input; flags come on top. A secret is better in a file than on the command line, where others see it."

func (s *settingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.url, "url", "", "`URL` of the receiver")
	cmd.Flags().StringVar(&s.description, "description", "", "`text` for people")
	cmd.Flags().StringArrayVar(&s.events, "events", nil, "`pattern` of event types that it gets (repeatable); all by default")
	cmd.Flags().StringArrayVar(&s.set, "set", nil, "setting `name=value` (repeatable)")
}

// object is the settings as JSON. file is @FILE or -, "" for none.
func (s *settingFlags) object(c *command, file string) (map[string]any, error) {
	object := map[string]any{}
	if file != "" {
		text, err := c.input([]string{file})
		if err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		members := map[string]json.RawMessage{}
		if err := json.Unmarshal(text, &members); err != nil && !json.Valid(text) {
			return nil, fmt.Errorf("the settings are not JSON: %w", err)
		} else if err != nil || members == nil {
			return nil, errors.New(`the settings are JSON, but no object: write {"url":"https://…"}`)
		}
		for name, value := range members {
			object[name] = value
		}
	}
	if s.url != "" {
		object["url"] = s.url
	}
	if s.description != "" {
		object["description"] = s.description
	}
	if len(s.events) > 0 {
		object["events"] = s.events
	}
	for _, pair := range s.set {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--set %q is not NAME=VALUE", pair)}
		}
		if err := put(object, name, settingOf(value)); err != nil {
			return nil, err
		}
	}
	for _, name := range s.unset {
		if err := put(object, name, nil); err != nil {
			return nil, err
		}
	}
	return object, nil
}

// settingOf is a value as JSON has it, else a text.
func settingOf(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// put sets a member by its path, like labels.project.
func put(object map[string]any, path string, value any) error {
	name, rest, deeper := strings.Cut(path, ".")
	if name == "" {
		return usageError{fmt.Errorf("the name of a setting is empty in %q", path)}
	}
	if !deeper {
		object[name] = value
		return nil
	}
	below := map[string]any{}
	switch old := object[name].(type) {
	case map[string]any:
		below = old
	case json.RawMessage:
		if json.Unmarshal(old, &below) != nil {
			return usageError{fmt.Errorf("%s is no object, so it has no %s", name, rest)}
		}
	case nil:
	default:
		return usageError{fmt.Errorf("%s is no object, so it has no %s", name, rest)}
	}
	object[name] = below
	return put(below, rest, value)
}

func (c *command) addEndpoint() *cobra.Command {
	var a asking
	var s settingFlags
	cmd := &cobra.Command{
		Use:   "add [NAME] [@FILE|-]",
		Short: "Make an endpoint at a running Relay",
		Long: "Make an endpoint at a running Relay. It is in force with the answer, and at all Relays of the outbox within\n" +
			"a second. Without a NAME it gets one, and without a secret, too: relay secret show has it.\n\n" + aboutSettings,
		Example: "  relay endpoints add shop --url https://shop.example.com/hooks --events 'order.*'\n  relay endpoints add @endpoint.json",
		Args:    argRange(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			name, file, err := nameAndFile(args)
			if err != nil {
				return err
			}
			object, err := s.object(c, file)
			if err != nil {
				return err
			}
			if name != "" {
				object["name"] = name
			}
			return c.changeMade(a, question{method: http.MethodPost, path: "/v1/endpoints"}, object)
		},
	}
	askFlags(cmd, &a)
	s.add(cmd)
	return cmd
}

// nameAndFile tells the two optional arguments apart.
func nameAndFile(args []string) (name, file string, err error) {
	for _, arg := range args {
		switch {
		case arg == "":
			return "", "", usageError{errors.New("NAME is empty: leave it out to get one")}
		case arg == "-" || strings.HasPrefix(arg, "@"):
			file = arg
		case name != "" || file != "":
			return "", "", usageError{fmt.Errorf("unexpected argument %q: the file begins with @", arg)}
		default:
			name = arg
		}
	}
	return name, file, nil
}

func (c *command) setEndpoint() *cobra.Command {
	var a asking
	var s settingFlags
	var replace bool
	var match string
	cmd := &cobra.Command{
		Use:   "set NAME [@FILE|-]",
		Short: "Change an endpoint that was made at run time",
		Long: "Change settings of an endpoint that was made at run time; --unset takes one away. With --replace those that are\n" +
			"given are all that it has, and secrets stay.\n\n" + aboutSettings,
		Example: "  relay endpoints set shop --set timeout.total=10s --unset labels.project\n  relay endpoints set shop --replace @endpoint.json",
		Args:    argRange(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			_, file, err := nameAndFile(args[1:])
			if err == nil && len(args) > 1 && file == "" {
				err = usageError{fmt.Errorf("unexpected argument %q: a file begins with @, and settings are flags", args[1])}
			}
			if err != nil {
				return err
			}
			object, err := s.object(c, file)
			if err != nil {
				return err
			}
			if len(object) == 0 {
				return usageError{errors.New("nothing to change: give --set, --unset, --url, --events or @FILE")}
			}
			method, header := http.MethodPatch, http.Header{}
			if replace {
				method = http.MethodPut
			}
			if match != "" {
				header.Set("If-Match", `"`+match+`"`)
			}
			return c.changeMade(a, question{method, path, header}, object)
		},
	}
	askFlags(cmd, &a)
	s.add(cmd)
	cmd.Flags().StringArrayVar(&s.unset, "unset", nil, "take the setting of this `name` away (repeatable)")
	cmd.Flags().BoolVar(&replace, "replace", false, "take all other settings away")
	cmd.Flags().StringVar(&match, "if-revision", "", "only if the endpoint has this `revision`: relay endpoints NAME --json tells it")
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}

// changeMade sends the settings, and shows the endpoint as it is then.
func (c *command) changeMade(a asking, q question, object map[string]any) error {
	t, err := c.admin(a.finding)
	if err != nil {
		return err
	}
	var e admin.Endpoint
	text, err := q.ask(t, object, &e)
	switch {
	case err != nil:
		return err
	case a.json:
		return client.JSON(c.out, text)
	}
	if err := c.printEndpoints(&admin.EndpointList{Endpoints: []admin.Endpoint{e}}); err != nil {
		return err
	}
	next := "its secret: relay secret show " + e.Name + "; try it: relay test " + e.Name + "\n"
	if q.method != http.MethodPost || e.Made == nil || e.Made.Secrets == 0 {
		next = "try it: relay test " + e.Name + "\n"
	}
	return c.output().Remark(next)
}

func (c *command) removeEndpoint() *cobra.Command {
	var find finding
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete an endpoint that was made at run time",
		Long: "Delete an endpoint that was made at run time. It is refused while deliveries are pending, unless forced: they\n" +
			"are held then, and relay discard ends them.",
		Args: argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			if force {
				path += "?force=true"
			}
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			if _, err := (question{method: http.MethodDelete, path: path}).ask(t, nil, nil); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s is deleted\n", args[0])
			return err
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&force, "force", false, "although deliveries are pending, which are held then")
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}

func (c *command) exportEndpoint() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Print an endpoint that was made at run time as a file has it, without secrets",
		Long: "Print an endpoint that was made at run time as a file has it. Secrets, values of headers, and a URL with a\n" +
			"query, are env(\"…\"): comments tell what these variables have to hold.",
		Args: argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := under("/v1/endpoints", args[0])
			if err != nil {
				return err
			}
			var e admin.Exported
			return c.show(a, path+"/hcl", &e, func() error {
				_, err := fmt.Fprint(c.out, strings.TrimRight(e.HCL, "\n")+"\n")
				return err
			})
		},
	}
	askFlags(cmd, &a)
	cmd.ValidArgsFunction = c.completeEndpoint
	return cmd
}
