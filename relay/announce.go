package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"relay/config"
	"relay/relay/app"
	"relay/relay/client"
)

// announce writes the run files, with which verbs find this Relay without its configuration, and
// returns a function that removes them. One is beside the outbox of sqlite, the other in the
// state folder, where verbs without a configuration look. Relay also runs without run files.
func (c *command) announce(a *app.App, o app.Options, files []string) (withdraw func()) {
	state := absolute(config.Default(c.env).Outbox.Path)
	r := client.Running{
		PID: os.Getpid(), Started: time.Now().UTC(), Version: version, MaxBody: o.Config.Ingest.MaxBody,
		Outbox: o.Config.Where(), Admin: reachable(a.Addrs("admin")), Ingest: reachable(a.Addrs("ingest")),
	}
	for _, f := range files {
		r.Config = append(r.Config, absolute(f))
	}
	places := []string{state}
	if o.Config.Outbox.Engine == "sqlite" {
		r.Outbox = absolute(o.Config.Outbox.Path)
		places = slices.Compact([]string{r.Outbox, state})
	}
	var published []*client.Published
	for i, dir := range places {
		p, err := r.Publish(dir)
		switch {
		case err == nil:
			published = append(published, p)
		case i == 0:
			o.Log.Warn().Err(err).Str("next", "give this Relay a state folder of its own with $STATE_DIRECTORY, or tell verbs with --config, --admin or $RELAY_ADMIN where it is").
				Msg("no run file: verbs find this Relay by its configuration only")
		default:
			o.Log.Debug().Err(err).Msg("no run file in the state folder")
		}
	}
	return func() {
		for _, p := range published {
			if err := p.Close(); err != nil {
				o.Log.Warn().Err(err).Msg("the run file is left; it is known to be stale")
			}
		}
	}
}

// reachable lists the listeners for the run file: absolute paths, sockets first.
func reachable(addrs []net.Addr) []string {
	unix, tcp := []string{}, []string{}
	for _, a := range addrs {
		if a.Network() == "unix" {
			unix = append(unix, "unix:"+absolute(a.String()))
		} else {
			tcp = append(tcp, "http://"+a.String())
		}
	}
	return append(unix, tcp...)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
