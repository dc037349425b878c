package app

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/relay/admin"
	"relay/relay/deliver"
)

// The first look is not at the start, because Relays disagree for a short time while a fleet gets
// a new file.
const (
	fleetEvery   = 30 * time.Second // ± a quarter
	fleetTimeout = 5 * time.Second  // for one look
	fleetLines   = 10               // log lines about endpoints in one look
)

// fleetOf returns a function that asks the outbox for its Relays, or nil if the outbox is not
// shared.
func (a *App) fleetOf() func(context.Context) (admin.Fleet, error) {
	store, shared := a.store.(outbox.Fleet)
	if !shared {
		return nil
	}
	return func(ctx context.Context) (admin.Fleet, error) {
		relays, err := store.Relays(ctx)
		if err != nil {
			return admin.Fleet{}, fmt.Errorf("ask for the fleet: %w", err)
		}
		return fleetFrom(relays), nil
	}
}

// relayName returns a function that tells the name of this Relay: that of its machine, unless the
// outbox is shared and gives another one.
func (a *App) relayName() func() string {
	if store, shared := a.store.(outbox.Fleet); shared {
		return store.Name
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return func() string { return host }
}

// self returns a function that tells which Relay this is, and which configuration it runs.
func (a *App) self() func() deliver.Self {
	name := a.relayName()
	return func() deliver.Self { return deliver.Self{Relay: name(), Generation: a.live.Load().generation} }
}

// fleetFrom converts the outbox's answer to admin's types.
func fleetFrom(relays []outbox.Relay) admin.Fleet {
	f := admin.Fleet{Disagreements: disagreements(relays)}
	for _, r := range relays {
		f.Relays = append(f.Relays, admin.Relay{
			Number: r.Number, Host: r.Host, PID: r.PID, Version: r.Version, Seen: r.Seen, Self: r.Self, Endpoints: r.Endpoints,
		})
	}
	return f
}

// disagreements names the endpoints for which Relays have different settings, and says which
// Relay has which. An endpoint that only some files have is included, because whether it gets an
// event depends on which Relay accepts the event.
func disagreements(relays []outbox.Relay) map[string]string {
	out := hashDifferences(relays)
	for _, name := range endpointsOf(relays) {
		var without []string
		for _, r := range relays {
			if _, has := r.Endpoints[name]; !has && r.Endpoints != nil {
				without = append(without, strconv.FormatInt(r.Number, 10))
			}
		}
		if len(without) == 0 {
			continue
		}
		text := "not in the file of relay " + strings.Join(without, ", ")
		if out[name] != "" {
			text = out[name] + "; " + text
		}
		out[name] = text
	}
	return out
}

// hashDifferences names the endpoints whose settings differ between Relays that have them.
func hashDifferences(fleet []outbox.Relay) map[string]string {
	byName := map[string]map[string][]string{}
	for _, r := range fleet {
		for name, hash := range r.Endpoints {
			if byName[name] == nil {
				byName[name] = map[string][]string{}
			}
			byName[name][hash] = append(byName[name][hash], strconv.FormatInt(r.Number, 10))
		}
	}
	out := map[string]string{}
	for name, hashes := range byName {
		if len(hashes) < 2 {
			continue
		}
		var groups []string
		for hash, relays := range hashes {
			groups = append(groups, hash+" at relay "+strings.Join(relays, ", "))
		}
		slices.Sort(groups)
		out[name] = strings.Join(groups, "; ")
	}
	return out
}

func endpointsOf(relays []outbox.Relay) []string {
	all := map[string]bool{}
	for _, r := range relays {
		for name := range r.Endpoints {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// watchFleet warns of Relays that disagree, until ctx ends.
func (a *App) watchFleet(ctx context.Context) {
	if ask := a.fleetOf(); ask != nil {
		w := fleetWatch{log: a.o.Log.With().Str("component", "fleet").Logger()}
		w.run(ctx, ask)
	}
}

// fleetWatch remembers the warnings it has logged.
type fleetWatch struct {
	log  zerolog.Logger
	said map[string]string // by endpoint: the settings that were reported, of any Relay
}

func (w *fleetWatch) run(ctx context.Context, ask func(context.Context) (admin.Fleet, error)) {
	for {
		next := time.NewTimer(fleetEvery*3/4 + rand.N(fleetEvery/2))
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C:
		}
		look, cancel := context.WithTimeout(ctx, fleetTimeout)
		f, err := ask(look)
		cancel()
		if err == nil { // the outbox logs its outages
			w.tell(f)
		}
	}
}

// tell logs each disagreement that is new or has changed since the last look. The line says which
// Relay has which settings, but a change of their numbers alone is not logged again, because a
// restart gives a Relay another number.
func (w *fleetWatch) tell(f admin.Fleet) {
	now := map[string]string{}
	lines, more := 0, 0
	for _, name := range slices.Sorted(maps.Keys(f.Disagreements)) {
		now[name] = variants(f.Relays, name)
		switch {
		case w.said[name] == now[name]:
		case lines == fleetLines:
			more++
		default:
			lines++
			w.log.Warn().Str("endpoint", name).
				Str("next", "bring the files of these Relays into line and reload those that are behind; GET /readyz says which Relay is where").
				Msg("the Relays of this outbox have different settings for an endpoint, and each delivers by its own file: " + f.Disagreements[name])
		}
	}
	if more > 0 {
		w.log.Warn().Int("endpoints", more).Str("next", "relay endpoints lists them").
			Msg("the Relays of this outbox have different settings for more endpoints")
	}
	w.said = now
}

// variants is a text that changes only when the set of settings changes.
func variants(relays []admin.Relay, name string) string {
	var all []string
	for _, r := range relays {
		if r.Endpoints != nil {
			all = append(all, r.Endpoints[name]) // "" where it is not in the file
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
