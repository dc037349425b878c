package expr

import (
	"fmt"
	"time"

	"github.com/zclconf/go-cty/cty"

	"relay/config/eval"
	"relay/policy/rawjson"
)

// View is an event and its delivery, for bodies and filters. It is the same for every attempt.
type View struct {
	ID, Type, Tenant, Key string
	Time                  time.Time
	Data                  []byte // valid JSON
	Delivery              string // its id

	Meter *Meter // of the evaluations; nil for none
}

// Meter adds up the cost and time of evaluations.
type Meter struct {
	Share float64       // the largest one of a budget, above 1 where that did not suffice
	Took  time.Duration // all of them
	Most  time.Duration // after which each evaluation has a budget of a millisecond, and after four times as long none; 0 for no bound
}

// budget is the budget for an evaluation: usual, plus an addition for the event's data.
func (m *Meter) budget(usual, data time.Duration) time.Duration {
	switch {
	case m == nil || m.Most == 0:
		return usual + data
	case m.Took > 4*m.Most:
		return 0
	}
	return min(usual, max(m.Most-m.Took, time.Millisecond)) + data
}

func (m *Meter) add(took, budget time.Duration) {
	if m != nil {
		m.Took += took
		m.Share = max(m.Share, float64(took)/float64(max(budget, 1)))
	}
}

// value makes the variable event, with the wanted members only.
func (r *evaluation) event(w *want) (cty.Value, error) {
	members := map[string]cty.Value{}
	for _, name := range membersOf("event") {
		inner, ok := w.members[name]
		if w.members != nil && !ok {
			continue
		}
		switch name {
		case "data":
			r.left.Spend(len(r.Data))
			left := maxValues
			data, err := fromJSON(rawjson.Trim(r.Data), inner, &left)
			if err != nil {
				return cty.NilVal, err
			}
			r.left.Spend((maxValues - left) * valueCost)
			members[name] = data
		case "timestamp":
			members[name] = cty.NumberIntVal(r.Time.Unix())
		default:
			members[name] = cty.StringVal(r.text(name))
		}
	}
	return cty.ObjectVal(members), nil
}

// text is a member of event that is a text, or the delivery's id.
func (v *View) text(name string) string {
	switch name {
	case "id":
		return v.ID
	case "type":
		return v.Type
	case "tenant":
		return v.Tenant
	case "key":
		return v.Key
	case "delivery":
		return v.Delivery
	case "time":
		return string(appendTime(nil, v.Time))
	}
	panic("expr: there is no text " + name)
}

// appendTime is RFC 3339 in UTC, with a fraction only where there is one.
func appendTime(dst []byte, t time.Time) []byte { return t.UTC().AppendFormat(dst, time.RFC3339Nano) }

// valueCost is the time to make a value of the event's data, in nanoseconds.
const valueCost = 200

var errTooMany = boundError(fmt.Sprintf("it asks for more than %d values of the event's data", maxValues))

// fromJSON makes a value of valid JSON, of an object only the wanted members.
func fromJSON(src []byte, w *want, left *int) (cty.Value, error) {
	if *left--; *left < 0 {
		return cty.NilVal, errTooMany
	}
	if len(src) == 0 {
		return cty.NilVal, boundError("it is not JSON")
	}
	switch src[0] {
	case '{':
		members := map[string]cty.Value{}
		for key, value := range rawjson.Members(src) {
			name := rawjson.Unquote(key)
			var inner *want
			if w != nil && w.members != nil {
				var ok bool
				if inner, ok = w.members[name]; !ok {
					continue
				}
			}
			v, err := fromJSON(value, inner, left)
			if err != nil {
				return cty.NilVal, err
			}
			members[name] = v
		}
		return cty.ObjectVal(members), nil
	case '[':
		var elements []cty.Value
		for e := range rawjson.Elements(src) {
			v, err := fromJSON(e, nil, left)
			if err != nil {
				return cty.NilVal, err
			}
			elements = append(elements, v)
		}
		return cty.TupleVal(elements), nil
	case '"':
		return cty.StringVal(rawjson.Unquote(src)), nil
	case 't', 'f':
		return cty.BoolVal(src[0] == 't'), nil
	case 'n':
		return cty.NullVal(cty.DynamicPseudoType), nil
	}
	return eval.ParseNumber(string(src))
}

// appendValue appends a value as JSON.
func appendValue(dst []byte, v cty.Value) ([]byte, error) {
	if v.IsNull() {
		return append(dst, "null"...), nil
	}
	switch t := v.Type(); {
	case t == cty.String:
		return rawjson.AppendString(dst, v.AsString()), nil
	case t == cty.Number && v.AsBigFloat().IsInf():
		return dst, boundError("it is infinite")
	case t == cty.Bool, t == cty.Number:
		return append(dst, scalarText(v)...), nil
	case t.IsObjectType(), t.IsMapType():
		sep := byte('{')
		for key, e := range v.Elements() { // in the order of the keys
			dst = append(rawjson.AppendString(append(dst, sep), key.AsString()), ':')
			var err error
			if dst, err = appendValue(dst, e); err != nil {
				return dst, err
			}
			sep = ','
		}
		if sep == '{' {
			dst = append(dst, '{')
		}
		return append(dst, '}'), nil
	case v.CanIterateElements():
		sep := byte('[')
		for _, e := range v.Elements() {
			var err error
			if dst, err = appendValue(append(dst, sep), e); err != nil {
				return dst, err
			}
			sep = ','
		}
		if sep == '[' {
			dst = append(dst, '[')
		}
		return append(dst, ']'), nil
	}
	return dst, boundError("it is not a value of JSON")
}

// scalarText is a string, number or bool as text.
func scalarText(v cty.Value) string {
	switch v.Type() {
	case cty.String:
		return v.AsString()
	case cty.Bool:
		if v.True() {
			return "true"
		}
		return "false"
	}
	f := v.AsBigFloat()
	if exponent := f.MantExp(nil); exponent > 1<<11 || exponent < -1<<11 {
		return f.Text('g', 20)
	}
	return f.Text('f', -1)
}
