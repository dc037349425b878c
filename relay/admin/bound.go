package admin

import (
	"net/http"
	"reflect"
	"strings"

	"relay/policy"
	"relay/relay/deliver"
)

// boundTag marks fields of answers that are about the whole, with the value "-": those who are bound to tenants or
// endpoints get them empty.
const boundTag = "bound"

// bounded is a part of an answer of which texts differ for those who are bound.
type bounded interface{ forBound() }

// boundWriter writes answers for an access that is bound. It is the one place that takes out what is about the whole:
// every route gets it from allowed.
type boundWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (w boundWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// shownTo is a body as the reader behind w may see it.
func shownTo(w http.ResponseWriter, body any) any {
	if _, ok := w.(boundWriter); !ok || body == nil {
		return body
	}
	v := reflect.New(reflect.TypeOf(body)).Elem()
	v.Set(reflect.ValueOf(body))
	strip(v)
	return v.Interface()
}

// strip takes what is about the whole out of a value that can be set. What pointers and lists lead to is of this answer
// alone.
func strip(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			strip(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			strip(v.Index(i))
		}
	case reflect.Map:
		if v.Type().Elem().Kind() != reflect.Struct {
			return
		}
		for _, key := range v.MapKeys() {
			one := reflect.New(v.Type().Elem()).Elem()
			one.Set(v.MapIndex(key))
			strip(one)
			v.SetMapIndex(key, one)
		}
	case reflect.Struct:
		if part, ok := v.Addr().Interface().(bounded); ok {
			part.forBound()
		}
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case !f.IsExported():
			case f.Tag.Get(boundTag) == "-" && f.Type.Kind() == reflect.Slice:
				v.Field(i).Set(reflect.MakeSlice(f.Type, 0, 0)) // it is a list of JSON still
			case f.Tag.Get(boundTag) == "-":
				v.Field(i).SetZero()
			default:
				strip(v.Field(i))
			}
		}
	}
}

// elseAsk stands for texts about the machine, the files and the outbox.
const elseAsk = "who operates this Relay can see why"

func (d *Delivery) forBound()    { d.Error = plainError(d.Code, d.Error) }
func (a *Attempt) forBound()     { a.Error = plainError(a.Code, a.Error) }
func (r *SentRequest) forBound() { r.Error = unlessEmpty(r.Error, "the body cannot be made again") }

func (r *TestResult) forBound() {
	r.Attempt.forBound()
	r.Unrecorded = unlessEmpty(r.Unrecorded, elseAsk)
}

func (j *Job) forBound() {
	j.Error = unlessEmpty(j.Error, elseAsk)
	if j.CancelledBy != j.Who {
		j.CancelledBy = unlessEmpty(j.CancelledBy, "an operator")
	}
}

// plainError is the text of an attempt's error without what is of the operator's network, files and machine. Those of
// settings that were made at run time stay: they are the reader's own.
func plainError(code, text string) string {
	switch code {
	case policy.CodeEgress:
		return unlessEmpty(text, "connections to this address are not allowed")
	case deliver.CodeNoSocket:
		return unlessEmpty(text, "no connection was free")
	}
	if strings.Contains(text, ".hcl:") || strings.Contains(text, "relay panicked") {
		return elseAsk
	}
	return text
}

func unlessEmpty(text, other string) string {
	if text == "" {
		return ""
	}
	return other
}
