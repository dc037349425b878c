package markup

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"text/template/parse"

	"relay/internal/sorting"
)

// maxDepth bounds templates that call each other.
const maxDepth = 200

// execution is one run of a template.
type execution struct {
	set   *Set
	out   io.Writer
	tree  *parse.Tree
	vars  []variable
	depth int
}

type variable struct {
	name  string
	value reflect.Value
}

// leave says how a list was left.
type leave int

const (
	atEnd leave = iota
	byBreak
	byContinue
)

func (x *execution) list(dot reflect.Value, list *parse.ListNode) (leave, error) {
	if list == nil {
		return atEnd, nil
	}
	for _, node := range list.Nodes {
		if how, err := x.node(dot, node); err != nil || how != atEnd {
			return how, err
		}
	}
	return atEnd, nil
}

func (x *execution) node(dot reflect.Value, node parse.Node) (leave, error) {
	switch n := node.(type) {
	case *parse.TextNode:
		_, err := x.out.Write(n.Text)
		return atEnd, err
	case *parse.ActionNode:
		return atEnd, x.action(dot, n)
	case *parse.IfNode:
		return x.branch(dot, &n.BranchNode, false)
	case *parse.WithNode:
		return x.branch(dot, &n.BranchNode, true)
	case *parse.RangeNode:
		return atEnd, x.loop(dot, n)
	case *parse.TemplateNode:
		return atEnd, x.template(dot, n)
	case *parse.BreakNode:
		return byBreak, nil
	case *parse.ContinueNode:
		return byContinue, nil
	case *parse.CommentNode:
		return atEnd, nil
	}
	return atEnd, x.wrong(node, errors.New("markup has no such node"))
}

// wrong says where an error is.
func (x *execution) wrong(node parse.Node, err error) error {
	where, what := x.tree.ErrorContext(node)
	return fmt.Errorf("%s: %s: %w", where, what, err)
}

func (x *execution) action(dot reflect.Value, n *parse.ActionNode) error {
	v, err := x.pipe(dot, n.Pipe)
	if err != nil || len(n.Pipe.Decl) > 0 {
		return err
	}
	shown, err := x.set.places[n].put(printable(v))
	if err != nil {
		return x.wrong(n, err)
	}
	_, err = io.WriteString(x.out, shown)
	return err
}

// printable is a value as it is printed: what a pointer points to, unless it prints itself; nothing for nil.
func printable(v reflect.Value) any {
	if !v.IsValid() {
		return ""
	}
	for (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && !v.IsNil() {
		if _, prints := v.Interface().(fmt.Stringer); prints {
			break
		}
		v = v.Elem()
	}
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil() {
		return ""
	}
	return v.Interface()
}

func (x *execution) branch(dot reflect.Value, n *parse.BranchNode, with bool) (leave, error) {
	defer x.forget(len(x.vars))
	v, err := x.pipe(dot, n.Pipe)
	if err != nil {
		return atEnd, err
	}
	if !truth(v) {
		return x.list(dot, n.ElseList)
	}
	if with {
		dot = v
	}
	return x.list(dot, n.List)
}

// forget ends variables.
func (x *execution) forget(mark int) { x.vars = x.vars[:mark] }

func (x *execution) loop(dot reflect.Value, n *parse.RangeNode) error {
	defer x.forget(len(x.vars))
	v, err := x.pipeValue(dot, n.Pipe)
	if err != nil {
		return err
	}
	v = direct(v)
	mark, any := len(x.vars), false
	each := func(key, value reflect.Value) (stop bool, err error) {
		any = true
		x.forget(mark)
		if decl := n.Pipe.Decl; len(decl) == 1 {
			x.assign(n.Pipe, decl[0], value)
		} else if len(decl) == 2 {
			x.assign(n.Pipe, decl[0], key)
			x.assign(n.Pipe, decl[1], value)
		}
		how, err := x.list(value, n.List)
		return how == byBreak, err
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if stop, err := each(reflect.ValueOf(i), v.Index(i)); stop || err != nil {
				return err
			}
		}
	case reflect.Map:
		keys := v.MapKeys()
		sorting.By(keys, func(a, b reflect.Value) int { return order(a, b) })
		for _, key := range keys {
			if stop, err := each(key, v.MapIndex(key)); stop || err != nil {
				return err
			}
		}
	case reflect.Int:
		for i := range int(v.Int()) {
			if stop, err := each(reflect.ValueOf(i), reflect.ValueOf(i)); stop || err != nil {
				return err
			}
		}
	case reflect.Invalid, reflect.Pointer, reflect.Interface: // nil
	default:
		return x.wrong(n, fmt.Errorf("a %s has no items", v.Type()))
	}
	if any {
		return nil
	}
	x.forget(mark)
	_, err = x.list(dot, n.ElseList)
	return err
}

func (x *execution) template(dot reflect.Value, n *parse.TemplateNode) error {
	tree := x.set.trees[n.Name]
	if tree == nil {
		return x.wrong(n, fmt.Errorf("there is no template %s", n.Name))
	}
	if x.depth == maxDepth {
		return x.wrong(n, errors.New("templates call each other without an end"))
	}
	v, err := x.pipe(dot, n.Pipe)
	if err != nil {
		return err
	}
	inner := &execution{set: x.set, out: x.out, tree: tree, vars: []variable{{"$", v}}, depth: x.depth + 1}
	_, err = inner.list(v, tree.Root)
	return err
}

// pipe is the value of a pipeline, whose variables are set.
func (x *execution) pipe(dot reflect.Value, p *parse.PipeNode) (reflect.Value, error) {
	v, err := x.pipeValue(dot, p)
	if err == nil && p != nil {
		for _, decl := range p.Decl {
			x.assign(p, decl, v)
		}
	}
	return v, err
}

func (x *execution) assign(p *parse.PipeNode, to *parse.VariableNode, v reflect.Value) {
	if p.IsAssign {
		for i := len(x.vars) - 1; i >= 0; i-- {
			if x.vars[i].name == to.Ident[0] {
				x.vars[i].value = v
				return
			}
		}
	}
	x.vars = append(x.vars, variable{to.Ident[0], v})
}

func (x *execution) pipeValue(dot reflect.Value, p *parse.PipeNode) (v reflect.Value, err error) {
	if p == nil {
		return reflect.Value{}, nil
	}
	for i, cmd := range p.Cmds {
		var last []reflect.Value
		if i > 0 {
			last = []reflect.Value{v}
		}
		if v, err = x.command(dot, cmd, last); err != nil {
			return v, err
		}
		for v.IsValid() && v.Kind() == reflect.Interface && !v.IsNil() {
			v = v.Elem()
		}
	}
	return v, nil
}
