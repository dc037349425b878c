package app

import (
	"fmt"
	"math"
	"slices"
	"syscall"

	"relay/config"
	"relay/ingest/listen"
)

const (
	// ownFiles counts the files that a Relay has open besides connections, or opens for a short
	// time: outbox, log, watches, run files, the runtime's own, a reload, a checkpoint.
	ownFiles = 20

	// filesPerListener are the listener, its lock and a connection that waits for a place.
	filesPerListener = 3

	// fewFiles is the limit below which the operator is warned.
	fewFiles = 1024
)

// shares is how many connections each part may have, so that all of them together stay below the
// limit of open files: apps, receivers and strangers cannot take the files that the outbox and
// the operator need.
type shares struct {
	limit    int // of open files
	ingest   int // of each listener of events
	admin    int // of each listener of the operator
	front    int // of each listener of fronts
	outgoing int // to receivers
}

// limitOfFiles is the process's limit of open files. Go raises it to the hard limit at start.
func limitOfFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return fewFiles // the usual default
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// maxFrontConns bounds the connections of a front's listener, whatever the limit of open files.
const maxFrontConns = 16384

// shareFiles divides the limit without the reserve: where there are fronts, one half for them,
// which have a connection to the upstream for each of a client. Of the rest one half is for
// connections to receivers, three eighths for listeners of events, one eighth for the operator's
// listeners. Fronts that a reload brings to a Relay without any have an eighth.
func shareFiles(limit int, c config.Config) shares {
	ingest := len(c.Ingest.Unix) + len(c.Ingest.HTTP)
	admin := 0
	for _, listener := range []string{c.Admin.HTTP, c.Admin.Unix} {
		if listener != "" {
			admin++
		}
	}
	left := limit - ownFiles - filesPerListener*(ingest+admin)
	if c.Outbox.Engine == "redis" {
		left -= redisOptions(c.Outbox).Connections()
	}
	fronts := frontListeners(c)
	left -= filesPerListener * fronts
	front := left / 8
	if fronts > 0 {
		front = left / 2
		left -= front
	}
	each := func(part, listeners int) int {
		return min(max(2, part/max(1, listeners)), listen.DefaultMaxConns)
	}
	incoming := left / 2
	return shares{
		limit:    limit,
		ingest:   each(incoming-incoming/4, ingest),
		admin:    each(incoming/4, admin),
		front:    min(max(2, front/2/max(1, fronts)), maxFrontConns),
		outgoing: max(2, (left-incoming)*2/3), // the rest is for files that opening one needs for a short time
	}
}

// frontListeners counts the addresses that fronts listen on.
func frontListeners(c config.Config) int {
	all := map[string]bool{}
	for _, f := range c.Fronts {
		for _, addr := range slices.Concat(f.HTTPS, f.HTTP) {
			all[addr] = true
		}
	}
	return len(all)
}

// warnFewFiles logs what a low limit means.
func (a *App) warnFewFiles() {
	s := a.shares
	if s.limit >= fewFiles {
		return
	}
	a.o.Log.Warn().Msg(fmt.Sprintf("the limit of open files is %d: each listener of ingest takes at most %d connections at a time, each of admin %d, and %d to receivers may be open. "+
		"Raise it (ulimit -n, LimitNOFILE=, --ulimit nofile=)", s.limit, s.ingest, s.admin, s.outgoing))
}
