package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"relay/relay/admin"
)

// Running is what a running Relay says of itself. The zero value of a field is unknown.
type Running struct {
	Ready     Ready
	Endpoints []admin.Endpoint
	OnDisk    string // hash of the files as they are now
	Version   string // of this program
}

// Ready is the part of GET /readyz that is judged.
type Ready struct {
	Status  string
	Version string // of GET /healthz
	Reason  string
	Outbox  struct {
		Durability   string
		ClockAheadMS *int64 `json:"clock_ahead_ms"`
		Warnings     []admin.Warning
	}
	Config        *admin.Config
	Disagreements map[string]string
}

const (
	// oldBacklog is the age of a delivery that says that its endpoint is behind.
	oldBacklog = 15 * time.Minute

	// clockSlack is a difference of clocks that hurts nobody.
	clockSlack = time.Second
)

// Judge makes the findings.
func (r Running) Judge() []Finding {
	var all []Finding
	add := func(level, what, next string) {
		all = append(all, Finding{Level: level, Part: Relay, What: what, Next: next})
	}
	if r.Ready.Status == "ready" {
		add(Fine, fmt.Sprintf("a Relay of version %s runs and is ready: its 202 means %s", r.Ready.Version, r.Ready.Outbox.Durability), "")
	} else {
		add(Breaks, "the running Relay accepts no events: "+r.Ready.Reason, "see its log; the other findings may say why")
	}
	if v := r.Ready.Version; v != "" && v != r.Version {
		add(Warns, fmt.Sprintf("version %s runs, and this program is %s", v, r.Version), "restart Relay to run this version")
	}
	if ms := r.Ready.Outbox.ClockAheadMS; ms != nil {
		if ahead := time.Duration(*ms) * time.Millisecond; ahead.Abs() >= clockSlack {
			add(Warns, fmt.Sprintf("the running Relay's clock is %s ahead of that of Redis (behind it, if negative)", ahead), "set the clocks right: receivers refuse signatures with a wrong time")
		}
	}
	for _, w := range r.Ready.Outbox.Warnings {
		add(Warns, "the running Relay sees at Redis: "+w.What, w.Next)
	}
	r.config(add)
	for _, name := range slices.Sorted(maps.Keys(r.Ready.Disagreements)) {
		all = append(all, Finding{Level: Warns, Part: Relay, Endpoints: []string{name}, What: "Relays with this outbox differ: " + r.Ready.Disagreements[name], Next: "give all of them the same file"})
	}
	return append(all, r.endpoints()...)
}

// config compares the configuration that runs with the files.
func (r Running) config(add func(level, what, next string)) {
	c := r.Ready.Config
	switch {
	case c == nil:
	case c.Error != "":
		add(Warns, "the last reload was refused, and generation "+fmt.Sprint(c.Generation)+" still runs: "+c.Error, "mend the file: relay check shows all that is wrong")
	case r.OnDisk == "":
	case c.Hash != r.OnDisk:
		add(Warns, fmt.Sprintf("generation %d runs with hash %s, and the files on disk have %s: they are not in force", c.Generation, c.Hash, r.OnDisk), "relay reload; relay diff says what changes")
	default:
		add(Fine, fmt.Sprintf("generation %d runs, and is what the files say (hash %s; secrets are not compared)", c.Generation, c.Hash), "")
	}
}

// endpoints are those with a state or a backlog that somebody should look at.
func (r Running) endpoints() []Finding {
	var all []Finding
	var pending int64
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		pending += e.Deliveries.Pending
		add := func(level, code, what, next string) {
			all = append(all, Finding{Level: level, Part: Endpoint, Code: code, Endpoints: []string{e.Name}, What: what, Next: next})
		}
		held := fmt.Sprintf("%s held", counted(int(e.Deliveries.Held), "delivery is", "deliveries are"))
		switch {
		case e.State == "disabled" && e.Enabled && e.Code == "operator":
			add(Warns, e.Code, fmt.Sprintf("disabled (%s): %s", e.Reason, held), "relay enable "+e.Name)
		case e.State == "disabled" && e.Enabled:
			add(Breaks, e.Code, fmt.Sprintf("disabled (%s): %s", e.Reason, held), "when the receiver is well, relay enable "+e.Name)
		case e.State == "paused" || e.Paused:
			add(Warns, "", "paused: "+held, "relay resume "+e.Name)
		case e.Made != nil && len(e.Made.Flaws) > 0:
			f := e.Made.Flaws[0]
			add(Breaks, "", "made at run time, and not in force: "+strings.TrimPrefix(f.Pointer+": "+f.Detail, ": ")+"; "+held, "change it: relay endpoints set "+e.Name)
		case e.State == "removed" && e.Deliveries.Held > 0:
			add(Warns, "", "it is in no file any more: "+held, "put it back into the file")
		case e.Code == "consent":
			add(Warns, e.Code, "the receiver has not yet consented in the handshake: nothing is sent", "ask the receiver to answer it")
		case e.Breaker == "open":
			add(Warns, "", "its breaker is open: most attempts fail", "look at its last errors in the log, and at the receiver")
		}
		if ms := e.Deliveries.OldestMS; ms != nil && e.Deliveries.Pending > 0 && time.Duration(*ms)*time.Millisecond >= oldBacklog {
			add(Warns, "", fmt.Sprintf("%s, the oldest for %s", counted(int(e.Deliveries.Pending), "delivery waits", "deliveries wait"), (time.Duration(*ms)*time.Millisecond).Round(time.Second)),
				"see relay endpoints "+e.Name+": what it waits for, its limits and its concurrency")
		}
	}
	if r.Endpoints != nil {
		all = append(all, Finding{Level: Fine, Part: Relay, What: counted(int(pending), "delivery waits", "deliveries wait") + " in all"})
	}
	return all
}
