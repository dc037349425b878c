package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"relay/config/eval"
)

// contexts builds the evaluation context for the file at path, which has only functions. All but
// env and file, which draw makes for one expression, are pure and take from the allowance of f. f
// records the files that are read.
func contexts(path string, env func(string) (string, bool), f *File) (plain *hcl.EvalContext, draw func(drawer) map[string]function.Function) {
	reader := fileReader{folder: filepath.Dir(path), reads: &f.reads}
	reader.allowed = []string{reader.folder, "/run/secrets", "/etc/relay"}
	if dir, _ := env("CREDENTIALS_DIRECTORY"); dir != "" {
		reader.allowed = append(reader.allowed, dir)
	}
	draw = func(d drawer) map[string]function.Function {
		return map[string]function.Function{"env": envFunction(env, d), "file": reader.function(d)}
	}
	functions := eval.Functions(pureFunctions(), &f.left)
	maps.Copy(functions, draw(drawer{}))
	return &hcl.EvalContext{Functions: functions, Variables: f.left.Variables(map[string]cty.Value{})}, draw
}

// pureFunctions leaves out setproduct, which can make a huge value of a short text, and parseint
// and csvdecode, whose errors quote their argument.
func pureFunctions() map[string]function.Function {
	return map[string]function.Function{
		"abs":          stdlib.AbsoluteFunc,
		"ceil":         stdlib.CeilFunc,
		"chomp":        stdlib.ChompFunc,
		"coalesce":     stdlib.CoalesceFunc,
		"compact":      stdlib.CompactFunc,
		"concat":       stdlib.ConcatFunc,
		"contains":     stdlib.ContainsFunc,
		"distinct":     stdlib.DistinctFunc,
		"element":      stdlib.ElementFunc,
		"flatten":      stdlib.FlattenFunc,
		"floor":        stdlib.FloorFunc,
		"format":       stdlib.FormatFunc,
		"formatlist":   stdlib.FormatListFunc,
		"join":         stdlib.JoinFunc,
		"jsondecode":   eval.JSONDecode(stdlib.JSONDecodeFunc),
		"jsonencode":   stdlib.JSONEncodeFunc,
		"keys":         stdlib.KeysFunc,
		"length":       stdlib.LengthFunc,
		"lookup":       stdlib.LookupFunc,
		"lower":        stdlib.LowerFunc,
		"max":          stdlib.MaxFunc,
		"merge":        stdlib.MergeFunc,
		"min":          stdlib.MinFunc,
		"range":        stdlib.RangeFunc,
		"regex":        stdlib.RegexFunc,
		"regexall":     stdlib.RegexAllFunc,
		"regexreplace": stdlib.RegexReplaceFunc,
		"replace":      stdlib.ReplaceFunc,
		"reverse":      stdlib.ReverseListFunc,
		"slice":        stdlib.SliceFunc,
		"sort":         stdlib.SortFunc,
		"split":        stdlib.SplitFunc,
		"strlen":       stdlib.StrlenFunc,
		"substr":       stdlib.SubstrFunc,
		"trim":         stdlib.TrimFunc,
		"trimprefix":   stdlib.TrimPrefixFunc,
		"trimspace":    stdlib.TrimSpaceFunc,
		"trimsuffix":   stdlib.TrimSuffixFunc,
		"upper":        stdlib.UpperFunc,
		"values":       stdlib.ValuesFunc,
		"zipmap":       stdlib.ZipmapFunc,
	}
}

// variableName is the portable form (POSIX.1-2024 section 8.1).
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// envFunction is env("NAME") and env("NAME", "default"). An empty variable counts as set.
func envFunction(env func(string) (string, bool), d drawer) function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) > 2 {
				return cty.NilVal, errors.New("env takes a name and at most one default")
			}
			name := args[0].AsString()
			value, ok := env(name)
			switch {
			case d.quiet && (!ok && len(args) < 2 || !utf8.ValidString(value)):
				return cty.NilVal, errors.New("the environment variable that another call names is not set, or not UTF-8 text")
			case ok && !utf8.ValidString(value):
				return cty.NilVal, fmt.Errorf("environment variable %q is not UTF-8 text", name)
			case ok:
				text := d.trim(value, d.called("env", name))
				if text == "" && value != "" {
					return cty.NilVal, errors.New("there is nothing but white space in it")
				}
				return cty.StringVal(text), nil
			case len(args) == 2:
				return args[1], nil
			}
			if !variableName.MatchString(name) { // perhaps a secret that was written in env() by mistake
				return cty.NilVal, errors.New("that is not the name of an environment variable")
			}
			return cty.NilVal, fmt.Errorf("environment variable %q is not set; set it, or give a default: env(%q, \"…\")", name, name)
		},
	})
}

// fileReader is file("path"): the text of a file below an allowed folder,
// without one line end at its end. A relative path starts at the folder of the
// file that names it.
type fileReader struct {
	folder  string
	allowed []string
	reads   *reads
}

func (r fileReader) function(d drawer) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			path := args[0].AsString()
			text, err := r.read(path, d)
			if err != nil && d.quiet {
				err = errors.New("the file that another call names cannot be read, or may not be")
			}
			return cty.StringVal(text), err
		},
	})
}

func (r fileReader) read(path string, d drawer) (string, error) {
	full := path
	if !filepath.IsAbs(full) {
		full = filepath.Join(r.folder, full)
	}
	r.reads.add(full, nil) // even if it cannot be read, because it may appear later
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", full, reason(err))
	}
	if !slices.ContainsFunc(r.allowed, func(dir string) bool { return below(real, dir) }) {
		return "", fmt.Errorf("%s is outside the folders that file() may read: %s", full, strings.Join(r.allowed, ", "))
	}
	data, open, err := r.reads.file(full, real, maxFile)
	if err != nil {
		return "", err
	}
	if open && d.warn != nil {
		d.warn(d.called("file", full) + ": it holds a secret and every user of this machine can read it; chmod 0600 it")
	}

	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if utf8.ValidString(text) {
		text = d.trim(text, d.called("file", path))
	}
	switch {
	case text == "":
		return "", fmt.Errorf("%s is empty", full)
	case !utf8.ValidString(text):
		return "", fmt.Errorf("%s is not UTF-8 text", full)
	}
	return text, nil
}

// below tells whether a path without symbolic links is inside dir.
func below(path, dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// reason is the error without its path.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
