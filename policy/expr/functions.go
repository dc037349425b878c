package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"relay/policy/rawjson"
	"relay/policy/rfc3339"
)

// eventFunctions are the functions for expressions about an event: those of the file, and some
// more.
func eventFunctions(file map[string]function.Function, once *answers) map[string]function.Function {
	all := maps.Clone(file)
	all["base64encode"] = textFunction(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })
	all["sha256"] = textFunction(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	})
	all["jsonencode"] = encodeFunction(file["jsonencode"])
	all["formatdate"] = dateFunction()
	all["tostring"] = stdlib.MakeToFunc(cty.String)
	all["jsondecode"] = jsonFunction()
	all["env"] = once.function("env", file["env"])
	all["file"] = once.function("file", file["file"])
	all["try"] = tryFunction()
	all["can"] = canFunction()
	return all
}

// encodeFunction is jsonencode that preserves halves of surrogate pairs.
func encodeFunction(file function.Function) function.Function {
	return function.New(&function.Spec{
		Params: file.Params(),
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if isWellFormed(args[0]) {
				return file.Call(args)
			}
			text, err := appendValue(nil, args[0])
			return cty.StringVal(string(text)), err
		},
	})
}

// isWellFormed tells whether all texts of a value are UTF-8.
func isWellFormed(v cty.Value) bool {
	switch {
	case v.IsNull(), !v.IsKnown():
		return true
	case v.Type() == cty.String:
		return utf8.ValidString(v.AsString())
	case v.CanIterateElements():
		for key, e := range v.Elements() {
			if !isWellFormed(key) || !isWellFormed(e) {
				return false
			}
		}
	}
	return true
}

// cutting tells of functions that take a text apart, so that a half of a surrogate pair, which
// is three bytes, would come out as three characters. cuts tells whether a call does.
func cutting(name string) (cuts func(args []cty.Value) bool, ok bool) {
	switch name {
	case "upper", "lower", "regex", "regexall", "regexreplace":
		return func([]cty.Value) bool { return true }, true
	case "split": // into characters
		return func(args []cty.Value) bool { return args[0].AsString() == "" }, true
	case "format": // %q
		return func(args []cty.Value) bool { return strings.Contains(args[0].AsString(), "q") }, true
	}
	return nil, false
}

// wellFormed is f with one U+FFFD for each half of a surrogate pair in its texts.
func wellFormed(f function.Function, cuts func(args []cty.Value) bool) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if !cuts(args) {
				return f.Call(args)
			}
			for i, v := range args {
				if v.Type() == cty.String && !v.IsNull() && !utf8.ValidString(v.AsString()) {
					args[i] = cty.StringVal(rawjson.WellFormed(v.AsString()))
				}
			}
			return f.Call(args)
		},
	})
}

// dateFunction is formatdate with the same grammar of RFC 3339 as events.
func dateFunction() function.Function {
	return function.New(&function.Spec{
		Params: stdlib.FormatDateFunc.Params(),
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			at, err := rfc3339.Parse([]byte(args[1].AsString()))
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			return stdlib.FormatDate(args[0], cty.StringVal(at.Format(time.RFC3339)))
		},
	})
}

// isFree reports functions that take nothing from the allowance, because their arguments do, and
// files are read during decoding.
func isFree(name string) bool {
	return name == "env" || name == "file" || name == "try" || name == "can"
}

// Hidden replaces values that are not shown.
const Hidden = "***"

// answers are the results of env and file. Once sealed, nothing more is read.
type answers struct {
	known          map[string]cty.Value
	sealed, masked bool // masked ones are all the same
}

func (a *answers) function(name string, f function.Function) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if a.masked {
				return cty.StringVal(Hidden), nil
			}
			key := fmt.Sprintf("%s %#v", name, args)
			if v, ok := a.known[key]; ok {
				return v, nil
			}
			if a.sealed {
				return cty.NilVal, errors.New("it is called when the file is read only")
			}
			v, err := f.Call(args)
			if err == nil {
				a.known[key] = v
			}
			return v, err
		},
	})
}

// text is all results, for comparing two scopes.
func (a *answers) text() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(a.known)) {
		fmt.Fprintf(&b, "%s=%q\n", key, a.known[key].AsString())
	}
	return b.String()
}

// textFunction makes a text of a text.
func textFunction(of func(string) string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.StringVal(of(rawjson.WellFormed(args[0].AsString()))), nil
		},
	})
}

// tryFunction returns the first of its arguments that can be evaluated. HCL's own function
// evaluates each argument twice, and nested ones 2^n times.
func tryFunction() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "expression", Type: customdecode.ExpressionClosureType}},
		VarParam: &function.Parameter{Name: "others", Type: customdecode.ExpressionClosureType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, a := range args {
				if v, diags := customdecode.ExpressionClosureFromVal(a).Value(); !diags.HasErrors() {
					return v, nil
				}
			}
			return cty.NilVal, boundError("none of its expressions can be evaluated")
		},
	})
}

// canFunction tells whether its argument can be evaluated.
func canFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "expression", Type: customdecode.ExpressionClosureType}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			_, diags := customdecode.ExpressionClosureFromVal(args[0]).Value()
			return cty.BoolVal(!diags.HasErrors()), nil
		},
	})
}

func jsonFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text := []byte(args[0].AsString())
			if !json.Valid(text) {
				return cty.NilVal, boundError("it is not JSON")
			}
			left := maxValues
			return fromJSON(rawjson.Trim(text), nil, &left)
		},
	})
}
