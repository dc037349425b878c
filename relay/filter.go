package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relay/relay/query"
)

// filter is the flags of a filter: those of query.Params, with - for _. Of names that the caller
// completes the flag takes NAME=VALUE: --label project=web, --data deviceId=cam-7.
type filter struct {
	use    query.Use
	values map[string]*[]string // by the name of the parameter
}

// filterFlags adds the flags of a use.
func filterFlags(cmd *cobra.Command, use query.Use) *filter {
	f := &filter{use: use, values: map[string]*[]string{}}
	for _, p := range query.For(use) {
		f.values[p.Name] = new([]string)
		name, kind, about := flagOf(p.Name), strings.ReplaceAll(p.Kind, " or ", "/"), strings.ReplaceAll(p.About, "`", "")
		if open(p.Name) {
			kind = "name=value"
			_, about, _ = strings.Cut(about, ": ")
		} else if len(p.Values) > 0 && p.Kind == "word" {
			about += ": " + strings.Join(p.Values, ", ")
		}
		if p.Many {
			about += " (repeatable)"
		}
		cmd.Flags().Var(given{f.values[p.Name], kind}, name, about)
	}
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	return f
}

// given is the values of a flag that may be given more than once. What they mean is for Relay to say.
type given struct {
	values *[]string
	kind   string
}

func (g given) Set(value string) error { *g.values = append(*g.values, value); return nil }
func (g given) Type() string           { return g.kind }
func (g given) String() string {
	if g.values == nil {
		return ""
	}
	return strings.Join(*g.values, ",")
}

// flagOf is the flag of a parameter: attempted-since of attempted_since, label of label.NAME.
func flagOf(param string) string {
	name, _, _ := strings.Cut(param, ".")
	return strings.ReplaceAll(name, "_", "-")
}

// open tells whether the caller completes the name.
func open(param string) bool { return strings.HasSuffix(param, ".") }

// query is the filter as a query string. What is in it is for Relay to judge.
func (f *filter) query() (url.Values, error) {
	all := url.Values{}
	for _, p := range query.For(f.use) {
		for _, v := range *f.values[p.Name] {
			if !open(p.Name) {
				all.Add(p.Name, v)
				continue
			}
			name, value, ok := strings.Cut(v, "=")
			if !ok || name == "" {
				return nil, usageError{fmt.Errorf("--%s %q is not NAME=VALUE", flagOf(p.Name), v)}
			}
			all.Add(p.Name+strings.TrimPrefix(name, p.Name), value)
		}
	}
	return all, nil
}

// path is a path with the filter behind it.
func (f *filter) path(path string) (string, error) {
	all, err := f.query()
	return withQuery(path, all), err
}

// withQuery is a path with a query string.
func withQuery(path string, q url.Values) string {
	if text := q.Encode(); text != "" {
		path += "?" + text
	}
	return path
}
