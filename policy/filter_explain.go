package policy

import (
	"encoding/json"
	"fmt"
	"strings"

	"relay/config"
)

// Explain says for people why the filters decided so, "" if none rejected the event. It may
// contain the event's data.
func (f *Filter) Explain(d Decision) string {
	switch {
	case d.Term.Code != "":
		return d.Term.Error
	case d.By == byTenants:
		return "its tenant is none of " + f.show(byTenants, strings.Join(quoted(f.Tenants), ", "))
	case d.By == byWhen:
		return "when is false: " + oneLine(f.When.source)
	case d.By == bySample:
		return fmt.Sprintf("its id is not in the sample of %s", f.show(bySample, decimal(f.Sample)))
	case d.By == byDedupe:
		return fmt.Sprintf("dedupe: unless one came in the %s before with the same by, %s", f.show("dedupe.window", config.FormatDuration(f.Dedupe.Window)), d.subject)
	case d.By == byCrossing:
		return f.explainCrossing(d)
	}
	return ""
}

// show is the value of a setting, masked if it must not be shown.
func (f *Filter) show(setting, value string) string {
	if f.drawn.has(setting) {
		return Hidden
	}
	return value
}

func (f *Filter) explainCrossing(d Decision) string {
	c, value := f.Crossing, decimal(d.value)
	if c.Value.answers.Reveal() != "" {
		value = Hidden
	}
	switch {
	case d.Term.Mark == nil:
		return fmt.Sprintf("crossing: %s is below the lowest threshold, %s", value, f.show("crossing.at", decimal(c.At[0])))
	case d.Term.Mark.Lower:
		return fmt.Sprintf("crossing: %s is below reset_below, %s; all thresholds can be crossed again by %s", value, f.show("crossing.reset_below", decimal(c.ResetBelow)), d.subject)
	}
	return fmt.Sprintf("crossing: %s reaches threshold %s; unless that was crossed in the %s before by %s",
		value, f.show("crossing.at", decimal(c.At[d.Term.Mark.Level-1])), f.show("crossing.remember", config.FormatDuration(c.Remember)), d.subject)
}

// Subject is the subject of a Mark, as JSON; nil for a decision without one.
func (d Decision) Subject() json.RawMessage { return d.subject }

func quoted(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = fmt.Sprintf("%q", s)
	}
	return out
}
