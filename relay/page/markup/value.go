package markup

import (
	"errors"
	"fmt"
	"reflect"
	"text/template/parse"
)

// command is the value of one part of a pipeline. last is the value of the part before it, if there is one.
func (x *execution) command(dot reflect.Value, cmd *parse.CommandNode, last []reflect.Value) (reflect.Value, error) {
	first, args := cmd.Args[0], cmd.Args[1:]
	switch n := first.(type) {
	case *parse.FieldNode:
		return x.fields(dot, dot, n, n.Ident, args, last)
	case *parse.ChainNode:
		v, err := x.value(dot, n.Node)
		if err != nil {
			return v, err
		}
		return x.fields(dot, v, n, n.Field, args, last)
	case *parse.VariableNode:
		v, err := x.variable(n)
		if err != nil || len(n.Ident) == 1 {
			return v, err
		}
		return x.fields(dot, v, n, n.Ident[1:], args, last)
	case *parse.IdentifierNode:
		return x.function(dot, n, args, last)
	}
	if len(args) > 0 || len(last) > 0 {
		return reflect.Value{}, x.wrong(first, errors.New("it takes no arguments"))
	}
	return x.value(dot, first)
}

// value is the value of an argument.
func (x *execution) value(dot reflect.Value, node parse.Node) (reflect.Value, error) {
	switch n := node.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.NilNode:
		return reflect.Value{}, nil
	case *parse.BoolNode:
		return reflect.ValueOf(n.True), nil
	case *parse.StringNode:
		return reflect.ValueOf(n.Text), nil
	case *parse.NumberNode:
		switch {
		case n.IsInt:
			return reflect.ValueOf(int(n.Int64)), nil
		case n.IsFloat:
			return reflect.ValueOf(n.Float64), nil
		}
	case *parse.PipeNode:
		return x.pipe(dot, n)
	case *parse.FieldNode, *parse.ChainNode, *parse.VariableNode, *parse.IdentifierNode:
		return x.command(dot, &parse.CommandNode{NodeType: parse.NodeCommand, Args: []parse.Node{node}}, nil)
	}
	return reflect.Value{}, x.wrong(node, errors.New("markup has no such value"))
}

func (x *execution) variable(n *parse.VariableNode) (reflect.Value, error) {
	for i := len(x.vars) - 1; i >= 0; i-- {
		if x.vars[i].name == n.Ident[0] {
			return x.vars[i].value, nil
		}
	}
	return reflect.Value{}, x.wrong(n, errors.New("there is no such variable"))
}

// fields follows names from a value; only the last one takes arguments.
func (x *execution) fields(dot, v reflect.Value, node parse.Node, names []string, args []parse.Node, last []reflect.Value) (reflect.Value, error) {
	for i, name := range names {
		var err error
		given, final := []parse.Node(nil), []reflect.Value(nil)
		if i == len(names)-1 {
			given, final = args, last
		}
		if v, err = x.field(dot, v, node, name, given, final); err != nil {
			return v, err
		}
	}
	return v, nil
}

// field is a method, a field of a struct, or an item of a map.
func (x *execution) field(dot, v reflect.Value, node parse.Node, name string, args []parse.Node, last []reflect.Value) (reflect.Value, error) {
	if f := method(v, name); f != nil {
		return x.call(dot, node, reflect.ValueOf(f), args, last)
	}
	if len(args) > 0 || len(last) > 0 {
		return reflect.Value{}, x.wrong(node, fmt.Errorf("%s is no method, so it takes no arguments", name))
	}
	v = direct(v)
	switch v.Kind() {
	case reflect.Struct:
		if f := v.FieldByName(name); f.IsValid() && f.CanInterface() {
			return f, nil
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String {
			item := v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key()))
			if !item.IsValid() {
				item = reflect.Zero(v.Type().Elem())
			}
			return item, nil
		}
	case reflect.Invalid, reflect.Pointer, reflect.Interface:
		return reflect.Value{}, x.wrong(node, fmt.Errorf("there is no %s of nothing", name))
	}
	return reflect.Value{}, x.wrong(node, fmt.Errorf("a %s has no field or method %s", v.Type(), name))
}

// What values offer to templates besides Methods; url.Values, for one, is a getter and a haver.
type (
	zeroer interface{ IsZero() bool }
	getter interface{ Get(name string) string }
	haver  interface{ Has(name string) bool }
)

// method is a function that a value offers, nil for none.
func method(v reflect.Value, name string) any {
	if !v.IsValid() || !v.CanInterface() {
		return nil
	}
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil() {
		return nil
	}
	of := v.Interface()
	if m, ok := of.(Methods); ok {
		if f := m.Method(name); f != nil {
			return f
		}
	}
	switch name {
	case "IsZero":
		if m, ok := of.(zeroer); ok {
			return m.IsZero
		}
	case "Get":
		if m, ok := of.(getter); ok {
			return m.Get
		}
	case "Has":
		if m, ok := of.(haver); ok {
			return m.Has
		}
	case "String":
		if m, ok := of.(fmt.Stringer); ok {
			return m.String
		}
	}
	if v.Kind() != reflect.Pointer && v.CanAddr() {
		return method(v.Addr(), name)
	}
	return nil
}

// direct is what a pointer or an interface leads to; nil ones stay.
func direct(v reflect.Value) reflect.Value {
	for (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && !v.IsNil() {
		v = v.Elem()
	}
	return v
}

func (x *execution) function(dot reflect.Value, n *parse.IdentifierNode, args []parse.Node, last []reflect.Value) (reflect.Value, error) {
	if n.Ident == "and" || n.Ident == "or" {
		return x.either(dot, n, args, last)
	}
	return x.call(dot, n, x.set.funcs[n.Ident], args, last)
}

// either is the first value that decides, and evaluates no further one.
func (x *execution) either(dot reflect.Value, n *parse.IdentifierNode, args []parse.Node, last []reflect.Value) (v reflect.Value, err error) {
	for _, arg := range args {
		if v, err = x.value(dot, arg); err != nil || truth(v) == (n.Ident == "or") {
			return v, err
		}
	}
	if len(last) > 0 {
		return last[0], nil
	}
	return v, nil
}

var errorType = reflect.TypeFor[error]()

// call calls a function, which returns a value, or a value and an error.
func (x *execution) call(dot reflect.Value, node parse.Node, f reflect.Value, args []parse.Node, last []reflect.Value) (reflect.Value, error) {
	t := f.Type()
	count := len(args) + len(last)
	fixed := t.NumIn()
	if t.IsVariadic() {
		fixed--
	}
	if count < fixed || count > fixed && !t.IsVariadic() {
		return reflect.Value{}, x.wrong(node, fmt.Errorf("it takes %d arguments and gets %d", fixed, count))
	}
	in := make([]reflect.Value, 0, count)
	for _, arg := range args {
		v, err := x.value(dot, arg)
		if err != nil {
			return v, err
		}
		in = append(in, v)
	}
	in = append(in, last...)
	for i := range in {
		want := t.In(min(i, t.NumIn()-1))
		if i >= fixed {
			want = want.Elem()
		}
		v, ok := fit(in[i], want)
		if !ok {
			return v, x.wrong(node, fmt.Errorf("argument %d is to be a %s", i+1, want))
		}
		in[i] = v
	}
	out := f.Call(in)
	if len(out) == 2 && out[1].Type() == errorType && !out[1].IsNil() {
		return out[0], x.wrong(node, out[1].Interface().(error))
	}
	return out[0], nil
}

// fit is a value as a type: itself, what it points to, or a number that is written as one of the type.
func fit(v reflect.Value, want reflect.Type) (reflect.Value, bool) {
	if !v.IsValid() {
		switch want.Kind() {
		case reflect.Interface, reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func:
			return reflect.Zero(want), true
		}
		return v, false
	}
	if v.Type().AssignableTo(want) {
		return v, true
	}
	if inner := direct(v); inner.IsValid() && inner.Type() != v.Type() && inner.Type().AssignableTo(want) {
		return inner, true
	}
	v = direct(v)
	if v.CanInt() && (want.Kind() >= reflect.Int && want.Kind() <= reflect.Int64 || want.Kind() == reflect.Float64) {
		return v.Convert(want), true
	}
	return v, false
}

// truth tells whether a value counts as true: it is not false, 0, empty or nil.
func truth(v reflect.Value) bool {
	if !v.IsValid() {
		return false
	}
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() > 0
	case reflect.Interface, reflect.Pointer, reflect.Func, reflect.Chan:
		return !v.IsNil()
	case reflect.Struct:
		return true
	}
	return !v.IsZero()
}
