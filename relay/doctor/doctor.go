// Package doctor is what relay doctor says: findings with their severity and a remedy, a look at
// every endpoint, and a judgement of a running Relay. What it looks at, others open for it.
package doctor

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"relay/internal/sorting"
)

// The levels of a Finding.
const (
	Breaks = "break" // events are refused or not delivered until somebody changes something
	Warns  = "warn"  // it works, and something will hurt
	Fine   = "ok"
)

// The parts that a Finding is about, in the order of the output.
const (
	File      = "file"
	Outbox    = "outbox"
	Listeners = "listeners"
	Front     = "front"
	Process   = "process"
	Relay     = "relay"
	Endpoint  = "endpoint"
)

// Finding is one thing that was seen. It holds no secret.
type Finding struct {
	Level     string   `json:"level"`
	Part      string   `json:"part"`
	Code      string   `json:"code,omitempty"`      // of an endpoint: as an attempt would have it
	Endpoints []string `json:"endpoints,omitempty"` // that it is about, in the order of the file
	What      string   `json:"what"`
	Next      string   `json:"next,omitempty"` // the remedy, unless all is well
}

// Report is the output of relay doctor.
type Report struct {
	Breaks   int       `json:"breaks"`
	Warnings int       `json:"warnings"`
	TookMS   int64     `json:"took_ms"`
	Findings []Finding `json:"findings"` // the most severe first
}

// New makes a Report of all findings.
func New(all []Finding, took time.Duration) *Report {
	r := &Report{TookMS: took.Milliseconds(), Findings: slices.Clone(all)}
	levels := []string{Breaks, Warns, Fine}
	parts := []string{File, Outbox, Listeners, Process, Relay, Endpoint}
	sorting.Stable(r.Findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level)),
			cmp.Compare(slices.Index(parts, a.Part), slices.Index(parts, b.Part)))
	})
	for _, f := range r.Findings {
		switch f.Level {
		case Breaks:
			r.Breaks++
		case Warns:
			r.Warnings++
		}
	}
	return r
}

const (
	shownNames = 5  // endpoints that a line names
	shownAlike = 10 // findings with the same code, beyond which people see only their number
)

// Write prints the report for people.
func (r *Report) Write(to io.Writer) error {
	var b strings.Builder
	alike, left := map[[2]string]int{}, map[[2]string]int{}
	for _, f := range r.Findings {
		if kind := [2]string{f.Level, f.Code}; f.Code != "" {
			if alike[kind]++; alike[kind] > shownAlike {
				left[kind]++
				continue
			}
		}
		about := f.Part
		if len(f.Endpoints) > 0 {
			about += " " + names(f.Endpoints)
		}
		fmt.Fprintf(&b, "%-5s  %s: %s\n", f.Level, about, f.What)
		if f.Next != "" {
			fmt.Fprintf(&b, "       next: %s\n", f.Next)
		}
	}
	kinds := slices.Collect(maps.Keys(left))
	sorting.By(kinds, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, kind := range kinds {
		fmt.Fprintf(&b, "%-5s  %s: %d more with the code %s, all of which --json shows\n", kind[0], Endpoint, left[kind], kind[1])
	}
	fmt.Fprintf(&b, "\n%s, %s, %d fine; took %s\n", counted(r.Breaks, "finding breaks", "findings break"), counted(r.Warnings, "warning", "warnings"),
		len(r.Findings)-r.Breaks-r.Warnings, time.Duration(r.TookMS)*time.Millisecond)
	_, err := io.WriteString(to, b.String())
	return err
}

// Err is nil without a finding that breaks.
func (r *Report) Err() error {
	if r.Breaks == 0 {
		return nil
	}
	return fmt.Errorf("%s events or deliveries: see above", counted(r.Breaks, "finding breaks", "findings break"))
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func names(all []string) string {
	if more := len(all) - shownNames; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:shownNames], ", "), more)
	}
	return strings.Join(all, ", ")
}
