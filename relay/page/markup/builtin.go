package markup

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
)

// builtins are the functions of every template. "and" and "or" are part of the language.
func builtins() map[string]any {
	return map[string]any{
		"and": func(...any) any { return nil }, "or": func(...any) any { return nil },
		"not":   func(v any) bool { return !truth(reflect.ValueOf(v)) },
		"len":   length,
		"index": index,
		"print": fmt.Sprint, "printf": fmt.Sprintf,
		"eq": equal,
		"ne": func(a, b any) (bool, error) { same, err := equal(a, b); return !same, err },
		"lt": func(a, b any) (bool, error) { n, err := compare(a, b); return n < 0, err },
		"le": func(a, b any) (bool, error) { n, err := compare(a, b); return n <= 0, err },
		"gt": func(a, b any) (bool, error) { n, err := compare(a, b); return n > 0, err },
		"ge": func(a, b any) (bool, error) { n, err := compare(a, b); return n >= 0, err },
	}
}

func length(v any) (int, error) {
	switch r := direct(reflect.ValueOf(v)); r.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return r.Len(), nil
	}
	return 0, fmt.Errorf("a %T has no length", v)
}

func index(of any, at ...any) (any, error) {
	v := direct(reflect.ValueOf(of))
	for _, i := range at {
		n := direct(reflect.ValueOf(i))
		switch v.Kind() {
		case reflect.Slice, reflect.Array, reflect.String:
			if !n.CanInt() || n.Int() < 0 || n.Int() >= int64(v.Len()) {
				return nil, fmt.Errorf("there is no item %v of %d", i, v.Len())
			}
			v = v.Index(int(n.Int()))
		case reflect.Map:
			key, ok := fit(n, v.Type().Key())
			if !ok && n.IsValid() && n.Kind() == v.Type().Key().Kind() {
				key, ok = n.Convert(v.Type().Key()), true
			}
			if !ok {
				return nil, fmt.Errorf("%v is no key of a %s", i, v.Type())
			}
			item := v.MapIndex(key)
			if !item.IsValid() {
				item = reflect.Zero(v.Type().Elem())
			}
			v = item
		default:
			return nil, errors.New("it has no items")
		}
		if v.Kind() == reflect.Interface {
			v = v.Elem()
		}
	}
	if !v.IsValid() {
		return nil, nil
	}
	return v.Interface(), nil
}

// equal tells whether a value equals one of others.
func equal(a any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, errors.New("eq takes two values or more")
	}
	for _, b := range others {
		n, err := compare(a, b)
		if err != nil {
			x, y := direct(reflect.ValueOf(a)), direct(reflect.ValueOf(b))
			if x.IsValid() != y.IsValid() {
				continue
			}
			if x.IsValid() && (x.Kind() != y.Kind() || !x.Comparable() || !y.Comparable()) {
				return false, err
			}
			if !x.IsValid() || x.Type() == y.Type() && x.Equal(y) {
				return true, nil
			}
			continue
		}
		if n == 0 {
			return true, nil
		}
	}
	return false, nil
}

// compare orders two values of a basic kind: texts, integers, floats.
func compare(a, b any) (int, error) {
	x, y := direct(reflect.ValueOf(a)), direct(reflect.ValueOf(b))
	switch {
	case !x.IsValid() || !y.IsValid():
	case x.Kind() == reflect.String && y.Kind() == reflect.String:
		return cmp.Compare(x.String(), y.String()), nil
	case x.CanInt() && y.CanInt():
		return cmp.Compare(x.Int(), y.Int()), nil
	case x.CanUint() && y.CanUint():
		return cmp.Compare(x.Uint(), y.Uint()), nil
	case x.CanInt() && y.CanUint():
		if x.Int() < 0 {
			return -1, nil
		}
		return cmp.Compare(uint64(x.Int()), y.Uint()), nil
	case x.CanUint() && y.CanInt():
		n, err := compare(b, a)
		return -n, err
	case x.CanFloat() && y.CanFloat():
		return cmp.Compare(x.Float(), y.Float()), nil
	}
	return 0, fmt.Errorf("a %T and a %T cannot be compared", a, b)
}

// order orders the keys of a map; those that cannot be compared stay as they come.
func order(a, b reflect.Value) int {
	n, _ := compare(a.Interface(), b.Interface())
	return n
}
