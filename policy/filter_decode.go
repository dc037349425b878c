package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"relay/config"
	"relay/config/eval"
	"relay/policy/expr"
)

const (
	maxLabel      = 255 // bytes of a tenant or a key
	maxThresholds = 100
	maxRemember   = 3650 * config.Day // of a mark
)

// readFilter reads the attributes of an endpoint's filter, except events. shards is the outbox's
// number of shards.
func (e *Endpoint) readFilter(b *config.Block, shards int, lane *eval.Lane) {
	at := expr.Site{Endpoint: e.Name, Budget: e.Budget.Filter, Lane: lane}
	f := &Filter{When: formulaOf(b, "when", at, checkBool), Sample: 1}
	if b.Strings("tenants", &f.Tenants, ValidLabel) {
		if len(f.Tenants) == 0 {
			b.Invalid("tenants", "An empty list would say that the endpoint gets nothing. Leave tenants out for all; enabled = false stops an endpoint.")
		}
		slices.Sort(f.Tenants)
	}
	b.Share("sample", &f.Sample)
	if f.Sample == 1 {
		f.Sample = 0
	}
	marks := 0
	if d := b.One(byDedupe); d != nil {
		f.Dedupe = readDedupe(d, at)
		marks++
		checkShards(d, shards)
	}
	if c := b.One(byCrossing); c != nil {
		f.Crossing = readCrossing(c, at)
		if marks++; marks > 1 {
			b.Fail(c.Place(), "Two filters that remember", "an endpoint has dedupe or crossing. Make a second endpoint with the same url for the other.")
		}
		checkShards(c, shards)
	}
	if marks > 0 || f.When != nil || len(f.Tenants) > 0 || f.Sample > 0 {
		f.drawn = e.drawn
		e.Filter = f
	}
}

// checkShards refuses filters with marks if there are several shards: each shard has its own
// marks, so each would let the same event through.
func checkShards(b *config.Block, shards int) {
	if shards > 1 {
		b.Fail(b.Place(), "Filter needs one shard", "the outbox has more than one shard, and what a filter remembers is known in one of them only. Use shards = 1, or remove the block.")
	}
}

func readDedupe(b *config.Block, at expr.Site) *Dedupe {
	d := &Dedupe{By: subjectOf(b, at), prefix: at.Endpoint + "\n" + byDedupe + "\n"}
	b.Require("window", `window = "10m", how long what comes again is left out`)
	b.Duration("window", &d.Window, time.Second, maxRemember)
	b.Done()
	return d
}

func readCrossing(b *config.Block, at expr.Site) *Crossing {
	c := &Crossing{By: subjectOf(b, at), Remember: 400 * config.Day, ResetBelow: math.Inf(-1)}
	b.Require("value", "a number of the event, like value = event.data.percent")
	c.Value = formulaOf(b, "value", at, checkNumber)
	b.Require("at", "thresholds: at = [80, 100], or range(80, 121, 10)")
	c.readThresholds(b)
	given := b.Float("reset_below", &c.ResetBelow, -math.MaxFloat64, math.MaxFloat64)
	if len(c.At) > 0 {
		if !given {
			c.ResetBelow = c.At[0]
		} else if c.ResetBelow > c.At[0] {
			b.Invalid("reset_below", "it is above the lowest threshold, which could then never be crossed.")
		}
	}
	b.Duration("remember", &c.Remember, time.Minute, maxRemember)
	b.Done()
	c.prefix = at.Endpoint + "\n" + byCrossing + "\n" + thresholds(c.At) + "\n" // others are numbered differently
	return c
}

func subjectOf(b *config.Block, at expr.Site) *formula {
	b.Require("by", "a subject: by = event.key, or by = [event.tenant, event.data.plan]")
	return formulaOf(b, "by", at, checkSubject)
}

func (c *Crossing) readThresholds(b *config.Block) {
	items, ok := b.List("at")
	if ok && (len(items) < 1 || len(items) > maxThresholds) {
		b.Invalid("at", fmt.Sprintf("write 1 to %d thresholds; here are %d.", maxThresholds, len(items)))
		return
	}
	for _, item := range items {
		n, err := strconv.ParseFloat(item.Value, 64)
		switch {
		case err != nil || math.IsNaN(n) || math.IsInf(n, 0):
			b.Fail(item.Place, "Invalid at", "a threshold is a number.")
			return
		case len(c.At) > 0 && n <= c.At[len(c.At)-1]:
			b.Fail(item.Place, "Invalid at", "thresholds ascend: this one is not above the one before.")
			return
		}
		c.At = append(c.At, n)
	}
}

func thresholds(at []float64) string {
	var all []string
	for _, n := range at {
		all = append(all, decimal(n))
	}
	return strings.Join(all, " ")
}

// formulaOf compiles an attribute; nil if it is absent, null or invalid. check evaluates an
// expression without variables.
func formulaOf(b *config.Block, name string, at expr.Site, check func(*expr.Expression) error) *formula {
	from, given := b.Deferred(name)
	if !given {
		return nil
	}
	s := expr.NewScope(from, at, "event", "endpoint")
	if s.Bad() {
		return nil
	}
	f := &formula{name: name, source: from.Source, answers: s.Answers()}
	if b.Type != "endpoint" {
		f.name = b.Type + "." + name
	}
	if name == byWhen && s.NeverBool() {
		s.FailWhole("Invalid when", "a condition is true or false: write a comparison, like event.data.amount >= 1000.")
		return nil
	}
	f.Expression = s.Expression()
	if s.Constant() {
		if err := check(f.Expression); err != nil {
			s.Invalid(err)
		}
	}
	return f
}

func checkBool(x *expr.Expression) error    { _, err := x.Bool(&View{}); return err }
func checkNumber(x *expr.Expression) error  { _, err := x.Number(&View{}); return err }
func checkSubject(x *expr.Expression) error { _, err := x.Subject(&View{}); return err }

// ValidLabel is the rule for tenants and keys.
func ValidLabel(s string) error {
	if s == "" || len(s) > maxLabel || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("write 1 to 255 bytes without control characters")
	}
	return nil
}

// settings are those of the filters that are set.
func (f *Filter) settings() []config.Setting {
	if f == nil {
		return nil
	}
	var all []config.Setting
	add := func(name, value string) { all = append(all, config.Setting{Name: name, Value: value}) }
	formula := func(f *formula) {
		all = append(all, config.Setting{Name: f.name, Value: oneLine(f.source), Hidden: f.answers})
	}
	if len(f.Tenants) > 0 {
		add(byTenants, fmt.Sprintf("%q", f.Tenants))
	}
	if f.When != nil {
		formula(f.When)
	}
	if f.Sample > 0 {
		add(bySample, decimal(f.Sample))
	}
	if d := f.Dedupe; d != nil {
		formula(d.By)
		add("dedupe.window", config.FormatDuration(d.Window))
	}
	if c := f.Crossing; c != nil {
		formula(c.Value)
		add("crossing.at", thresholds(c.At))
		formula(c.By)
		add("crossing.reset_below", decimal(c.ResetBelow))
		add("crossing.remember", config.FormatDuration(c.Remember))
	}
	return all
}

// oneLine is the file's text, quoted if it has line breaks.
func oneLine(source string) string {
	if strings.ContainsFunc(source, unicode.IsControl) {
		return strconv.Quote(source)
	}
	return source
}
