package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/config"
)

// What an alert can watch.
const (
	OnSuccessRate       = "success_rate"
	OnMean              = "mean"
	OnP95               = "p95"
	OnBacklogAge        = "backlog_age"
	OnBacklogCount      = "backlog_count"
	OnFailingSince      = "failing_since"
	OnBreakerOpen       = "breaker_open"
	OnDisabled          = "disabled"
	OnOutboxFill        = "outbox_fill"
	OnCertificateExpiry = "certificate_expiry"
	OnSilence           = "silence"
)

// Alert is a condition that operators want to hear of.
type Alert struct {
	Name      string
	On        string        // one of the constants above
	Limit     float64       // a share, a number, or seconds
	Window    time.Duration // of success_rate, mean and p95
	Min       int           // attempts in the window, without which nothing is said
	For       time.Duration // how long the condition must hold
	Cooldown  time.Duration // after it ended, nothing is said for this long
	Endpoints []string      // that are watched, one by one; nil for all

	drawn drawn
}

// unit is how the limit of a kind of alert is written.
type unit int

const (
	unitNone unit = iota
	unitShare
	unitNumber
	unitDuration
)

// watch is a kind of alert.
type watch struct {
	below    bool // the limit is a lower bound: below = …; else above = …
	unit     unit
	windowed bool
	whole    bool // of the whole outbox or process, not of each endpoint
}

func watches() map[string]watch {
	return map[string]watch{
		OnSuccessRate:       {below: true, unit: unitShare, windowed: true},
		OnMean:              {unit: unitDuration, windowed: true},
		OnP95:               {unit: unitDuration, windowed: true},
		OnBacklogAge:        {unit: unitDuration},
		OnBacklogCount:      {unit: unitNumber},
		OnFailingSince:      {unit: unitDuration},
		OnBreakerOpen:       {},
		OnDisabled:          {},
		OnOutboxFill:        {unit: unitShare, whole: true},
		OnCertificateExpiry: {below: true, unit: unitDuration, whole: true},
		OnSilence:           {unit: unitDuration, whole: true},
	}
}

// kinds are the names of all kinds, in the order of the constants.
func alertKinds() []string {
	return []string{OnSuccessRate, OnMean, OnP95, OnBacklogAge, OnBacklogCount, OnFailingSince, OnBreakerOpen, OnDisabled,
		OnOutboxFill, OnCertificateExpiry, OnSilence}
}

// Below tells whether the alert fires below its limit; else above it.
func (a *Alert) Below() bool { return watches()[a.On].below }

// Whole tells whether the alert is about the whole outbox or process.
func (a *Alert) Whole() bool { return watches()[a.On].whole }

// Windowed tells whether the alert is about attempts within its Window.
func (a *Alert) Windowed() bool { return watches()[a.On].windowed }

// Watches tells whether the alert is about an endpoint.
func (a *Alert) Watches(endpoint string) bool {
	return !a.Whole() && (a.Endpoints == nil || slices.Contains(a.Endpoints, endpoint))
}

// Show writes a value of the alert for people.
func (a *Alert) Show(value float64) string {
	switch watches()[a.On].unit {
	case unitShare:
		return strconv.FormatFloat(100*value, 'f', 1, 64) + " %"
	case unitDuration:
		return time.Duration(value * float64(time.Second)).Round(time.Millisecond).String()
	case unitNumber:
		return strconv.FormatFloat(value, 'f', 0, 64)
	}
	return ""
}

// ShownLimit is the limit for people, masked if it must not be shown; "" without one.
func (a *Alert) ShownLimit() string {
	if a.drawn.has("below") || a.drawn.has("above") {
		return Hidden
	}
	return a.Show(a.Limit)
}

// ShownWindow is the window for people.
func (a *Alert) ShownWindow() string { return config.FormatDuration(a.Window) }

// readAlerts decodes the alert blocks.
func readAlerts(blocks []*config.Block, endpoints []*Endpoint) []*Alert {
	var alerts []*Alert
	for _, b := range blocks {
		checkName(b)
		a := &Alert{Name: b.Name, Window: 15 * time.Minute, Min: 20, For: 5 * time.Minute, Cooldown: time.Hour}
		if b.Require("on", `on = "success_rate"; others are `+strings.Join(alertKinds()[1:], ", ")) {
			b.String("on", &a.On, config.OneOf(alertKinds()...))
		} else {
			b.String("on", &a.On)
		}
		a.readLimit(b)
		b.Duration("window", &a.Window, time.Minute, 24*time.Hour)
		b.Int("min", &a.Min, 1, 1_000_000)
		b.Duration("for", &a.For, 0, 24*time.Hour)
		b.Duration("cooldown", &a.Cooldown, 0, 30*24*time.Hour)
		a.readEndpoints(b, endpoints)
		a.drawn = a.drawn.with(b)
		b.Done()
		alerts = append(alerts, a)
	}
	return alerts
}

func (a *Alert) readLimit(b *config.Block) {
	var below, above string
	isBelow, isAbove := b.String("below", &below), b.String("above", &above)
	w, known := watches()[a.On]
	if !known {
		return // said already
	}
	name, text, given, other, otherGiven := "above", above, isAbove, "below", isBelow
	if w.below {
		name, text, given, other, otherGiven = other, below, isBelow, name, isAbove
	}
	switch {
	case otherGiven && w.unit == unitNone, given && w.unit == unitNone:
		b.Invalid(map[bool]string{true: name, false: other}[given], a.On+" has no limit. Leave it out.")
	case otherGiven:
		b.Invalid(other, fmt.Sprintf("%s fires %s its limit: write %s = …", a.On, name, name))
	case !given && w.unit != unitNone:
		b.Require(name, name+" = …")
	case given:
		var err error
		if a.Limit, err = w.unit.parse(text); err != nil {
			b.Invalid(name, err.Error())
		}
	}
}

func (u unit) parse(text string) (float64, error) {
	switch u {
	case unitShare:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f <= 0 || f > 1 {
			return 0, errors.New("write a share above 0, up to 1, like 0.95")
		}
		return f, nil
	case unitNumber:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f < 0 || f != float64(int64(f)) {
			return 0, errors.New("write a whole number, like 1000")
		}
		return f, nil
	}
	d, err := config.DurationBetween(text, time.Millisecond, 400*24*time.Hour)
	return d.Seconds(), err
}

func (a *Alert) readEndpoints(b *config.Block, endpoints []*Endpoint) {
	items, given := b.Texts("endpoints")
	if !given {
		return
	}
	var names []string
	for _, e := range endpoints {
		names = append(names, e.Name)
	}
	switch {
	case a.Whole():
		b.Invalid("endpoints", a.On+" is not about an endpoint. Leave it out.")
	case len(items) == 0:
		b.Invalid("endpoints", "An empty list would watch none. Leave endpoints out for all.")
	}
	for _, item := range items {
		if !slices.Contains(names, item.Value) && !isName(item.Value) {
			b.Fail(item.Place, "Invalid endpoints", "a name is 1 to 64 letters, digits, _ and -.")
		} else if !slices.Contains(names, item.Value) {
			b.Warn("endpoints", fmt.Sprintf("the file has no endpoint %q: the alert waits for one made at run time", item.Place.Quote(item.Value)))
		}
		a.Endpoints = append(a.Endpoints, item.Value)
	}
}
