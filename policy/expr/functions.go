package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
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

// eventFunctions are those that an expression about an event can call: those of the file,
// bounded, and some more.
func eventFunctions(file map[string]function.Function, once *answers) map[string]function.Function {
	all := make(map[string]function.Function, len(file)+8)
	for name, f := range file {
		all[name] = bounded(name, f)
	}
	all["env"] = once.function("env", file["env"])
	all["file"] = once.function("file", file["file"])
	all["try"] = tryFunction()
	all["can"] = canFunction()
	all["base64encode"] = textFunction(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })
	all["sha256"] = textFunction(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	})
	all["jsonencode"] = bounded("jsonencode", encodeFunction(file["jsonencode"]))
	all["formatdate"] = bounded("formatdate", dateFunction())
	all["tostring"] = bounded("tostring", stdlib.MakeToFunc(cty.String))
	all["jsondecode"] = jsonFunction()
	return all
}

// encodeFunction is jsonencode that keeps halves of surrogate pairs.
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

// dateFunction is formatdate with the grammar of RFC 3339 that events have.
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

// Hidden stands for what is not shown.
const Hidden = "***"

// answers of env and file. Once they are sealed nothing more is read.
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

// text is all that was answered, to tell two scopes apart.
func (a *answers) text() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(a.known)) {
		fmt.Fprintf(&b, "%s=%q\n", key, a.known[key].AsString())
	}
	return b.String()
}

// bounded refuses to make a text over maxText or a list over maxValues, before it is made
// where a few bytes of data could make gigabytes.
func bounded(name string, f function.Function) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if makes(name, args) > maxText {
				return cty.NilVal, boundError(fmt.Sprintf("it could make more than %d bytes", maxText))
			}
			v, err := f.Call(args)
			switch {
			case err != nil, v.IsNull():
			case v.Type() == cty.String && len(v.AsString()) > maxText:
				return cty.NilVal, boundError(fmt.Sprintf("it makes more than %d bytes", maxText))
			case v.CanIterateElements() && v.LengthInt() > maxValues:
				return cty.NilVal, boundError(fmt.Sprintf("it makes more than %d values", maxValues))
			}
			return v, err
		},
	})
}

// Verbs of format with a width of four digits or more, and those that take a number.
var (
	wide    = regexp.MustCompile(`%[^%a-zA-Z]*[0-9]{4}`)
	numeric = regexp.MustCompile(`%[^%a-zA-Z]*[bcdeEfFgGoxX]`)
)

// makes is at least the size of what those functions make that can multiply their
// arguments, 0 for the others.
func makes(name string, args []cty.Value) int {
	text := func(i int) string {
		if args[i].IsNull() || args[i].Type() != cty.String {
			return ""
		}
		return args[i].AsString()
	}
	switch name {
	case "replace":
		return len(text(0)) + strings.Count(text(0), text(1))*len(text(2))
	case "regexreplace": // each group is of one match, so all of a group's texts are at most the text
		return len(text(0)) + (len(text(0))+1)*len(text(2)) + strings.Count(text(2), "$")*len(text(0))
	case "join":
		n := 0
		for _, list := range args[1:] {
			if !list.IsNull() {
				n += weigh(list, maxText) + list.LengthInt()*len(text(0))
			}
		}
		return n
	case "distinct": // which compares each with each
		if !args[0].IsNull() && args[0].LengthInt() > 1000 {
			return maxText + 1
		}
	case "format", "formatlist":
		most, rows := 0, 1
		for i, a := range args[1:] {
			most += weigh(a, maxText)
			if !a.IsNull() && name == "formatlist" && a.CanIterateElements() {
				rows = max(rows, a.LengthInt())
			}
			if numeric.MatchString(text(0)) {
				if _, err := strconv.ParseFloat(text(i+1), 64); errors.Is(err, strconv.ErrRange) {
					return maxText + 1 // 1e999999999 with all its digits
				}
			}
		}
		if wide.MatchString(text(0)) {
			return maxText + 1
		}
		return rows * (len(text(0)) + strings.Count(text(0), "%")*(most+1000))
	}
	return 0
}

// textFunction makes a text of a text.
func textFunction(of func(string) string) function.Function {
	return bounded("", function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.StringVal(of(rawjson.WellFormed(args[0].AsString()))), nil
		},
	}))
}

// tryFunction answers with the first of its arguments that can be evaluated. HCL's own
// evaluates each twice, and those inside of others twice as often.
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
