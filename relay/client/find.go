package client

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"relay/config"
)

// UsageError is a mistake in the command line.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

// Finder finds a running Relay: at the given address, else by its run file, else by the
// configuration, or the readable part of it. No valid file is needed.
type Finder struct {
	Env     func(string) (string, bool)
	Configs []string // files and folders that --config named

	// Warn gets warnings about the configuration if only that says where the Relay is, and the
	// addresses that are tried.
	Warn func(problems error, asking string)
}

// systemState is the state folder of a systemd service with StateDirectory=relay, for verbs that
// run in a shell.
const systemState = "/var/lib/relay"

// Admin finds the admin listener. given is --admin; $RELAY_ADMIN and $RELAY_ADMIN_TOKEN
// come next.
func (f Finder) Admin(given string) (Target, error) {
	env, _ := f.Env("RELAY_ADMIN")
	s, err := f.look("--admin", given, "$RELAY_ADMIN", env)
	if err != nil {
		return Target{}, err
	}
	token, _ := f.Env("RELAY_ADMIN_TOKEN")
	c := s.config.Admin
	s.token = func(address string) string {
		return tokenOf(address, token, []config.HTTP{{Addr: c.HTTP, Token: c.Token}})
	}
	switch {
	case s.given != "":
	case s.running != nil && len(s.running.Admin) == 0:
		return Target{}, fmt.Errorf("the Relay that runs (process %d) has no admin listener: nothing to ask", s.running.PID)
	case s.running != nil:
		s.addrs = s.running.Admin
	default:
		// Only one address: if this Relay does not answer, another Relay may answer at the next.
		if c.Unix != "" {
			s.addrs = []string{"unix:" + c.Unix}
		} else if c.HTTP != "" {
			s.addrs = []string{"http://" + c.HTTP}
		}
	}
	if len(s.addrs) == 0 {
		return Target{}, errors.New("the configuration turns the admin listener off: nothing to ask")
	}
	return f.target(s, "--admin or $RELAY_ADMIN")
}

// Ingest finds a listener that takes events. given is --to, and token is --token, after
// which $RELAY_TOKEN comes.
func (f Finder) Ingest(given, token string) (Target, error) {
	s, err := f.look("--to", given, "", "")
	if err != nil {
		return Target{}, err
	}
	env, _ := f.Env("RELAY_TOKEN")
	c := s.config.Ingest
	s.token = func(address string) string { return tokenOf(address, cmp.Or(token, env), c.HTTP) }
	s.maxBody = c.MaxBody
	switch {
	case s.given != "":
	case s.running != nil:
		s.addrs, s.maxBody = s.running.Ingest, s.running.MaxBody
	default:
		if len(c.Unix) > 0 {
			s.addrs = []string{"unix:" + c.Unix[0].Path}
		} else if len(c.HTTP) > 0 {
			s.addrs = []string{"http://" + c.HTTP[0].Addr}
		}
	}
	if len(s.addrs) == 0 {
		return Target{}, errors.New("the configuration has no ingest listener; name one with --to")
	}
	return f.target(s, "--to")
}

// sight is what look has found.
type sight struct {
	given    string   // the flag or variable that named the addresses, if any
	running  *Running // nil if no run file applies
	other    *Running // of a running Relay, which may be another than the one that is meant
	config   config.Config
	problems error // of the files
	addrs    []string
	token    func(address string) string
	maxBody  int64
}

// look reads flags, variables, the configuration and the run files.
func (f Finder) look(flag, given, variable, env string) (*sight, error) {
	s := &sight{}
	if given != "" {
		s.given, s.addrs = flag, []string{given}
	} else if env != "" {
		s.given, s.addrs = variable, []string{env}
	}
	for _, a := range s.addrs {
		if _, err := ParseAddr(a); err != nil {
			return nil, UsageError{fmt.Errorf("%s %q %w", s.given, a, err)}
		}
	}
	paths, err := config.Find(f.Configs, f.Env)
	named, _ := f.Env("RELAY_CONFIG")
	explicit := len(f.Configs) > 0 || named != ""
	if err == nil {
		s.config, s.problems = config.Partial(paths, f.Env)
	} else {
		s.config = config.Default(f.Env)
	}
	if s.given != "" {
		return s, nil
	}
	s.search(f, explicit, paths)
	if s.running != nil && !s.running.reads(paths) {
		s.config, _ = config.Partial(s.running.Config, f.Env) // for its tokens
	}
	if s.running == nil && err != nil && explicit {
		return nil, UsageError{fmt.Errorf("%w%s", err, s.hint())}
	}
	return s, nil
}

// search looks for the run file of the Relay that is meant. If files were named, that Relay was
// started with them or has the same outbox. If a file was found by the search order, its run file
// may also be beside that file's outbox. Without a file, any running Relay will do.
func (s *sight) search(f Finder, explicit bool, paths []string) {
	box := ""
	if s.config.Outbox.Engine == "sqlite" {
		box = whole(s.config.Outbox.Path)
	}
	state := whole(config.Default(f.Env).Outbox.Path)
	named := f.Configs
	if path, _ := f.Env("RELAY_CONFIG"); len(named) == 0 && path != "" {
		named = []string{path}
	}
	asked := slices.Concat(named, paths)
	places := []string{cmp.Or(box, state), state, systemState}
	for i, place := range places {
		r, live, err := read(place)
		if err != nil || !live {
			continue
		}
		same := len(paths) > 0 && s.problems == nil && r.Outbox == box
		if r.reads(asked) || same && explicit || !explicit && (len(paths) == 0 || i == 0) {
			s.running = &r
			return
		}
		if s.other == nil {
			s.other = &r
		}
	}
}

// reads reports whether a Relay was started with one of the files, or with a file in one of the
// folders.
func (r *Running) reads(paths []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		path = whole(path)
		return slices.Contains(r.Config, path) || slices.ContainsFunc(r.Config, func(c string) bool { return filepath.Dir(c) == path })
	})
}

// target converts the result of look to a Target. flags are those that name an address.
func (f Finder) target(s *sight, flags string) (Target, error) {
	t := Target{MaxBody: int(s.maxBody)}
	for _, text := range s.addrs {
		a, err := ParseAddr(text)
		if err != nil {
			return Target{}, fmt.Errorf("address %q %w", text, err)
		}
		a.Token = s.token(a.Address)
		t.Addrs = append(t.Addrs, a)
	}
	switch {
	case s.given != "":
		t.next = "start one with: relay serve"
	case s.running != nil:
		t.pid = s.running.PID
		t.next = fmt.Sprintf("process %d runs and says in %s that it listens there; it may be starting or stopping, else name another address with %s", s.running.PID, s.running.path, flags)
	default:
		t.next = "start one with: relay serve; or say where it is: " + flags + s.hint()
		if s.problems != nil {
			f.Warn(s.problems, t.String())
		}
	}
	return t, nil
}

// hint names a running Relay that may not be the one that is meant.
func (s *sight) hint() string {
	if s.other == nil || len(s.other.Config) == 0 {
		return ""
	}
	return fmt.Sprintf("; one runs with --config %s (process %d)", s.other.Config[0], s.other.PID)
}

// ParseAddr reads unix:/path, http://host:port or host:port. Its error continues a sentence that
// begins with the text.
func ParseAddr(s string) (Addr, error) {
	if path, isUnix := strings.CutPrefix(s, "unix:"); isUnix && path != "" {
		return Addr{Network: "unix", Address: path}, nil
	}
	plain := strings.TrimSuffix(strings.TrimPrefix(s, "http://"), "/")
	if _, _, err := net.SplitHostPort(plain); err == nil && !strings.ContainsAny(plain, "/@") && !strings.HasPrefix(plain, "unix:") {
		return Addr{Network: "tcp", Address: plain}, nil // zones of IPv6, too, which a URL escapes
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return Addr{}, errors.New("is neither unix:/path nor http://host:port")
	}
	return Addr{Network: "tcp", Address: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80"))}, nil
}

// tokenOf is the token for an address: the given one, else that of the listener with the same
// port, else, on this machine, that of the first listener with one. The token of a listener on
// loopback stays on this machine.
func tokenOf(address, given string, listeners []config.HTTP) string {
	host, port, err := net.SplitHostPort(address)
	if given != "" || err != nil {
		return given
	}
	first := ""
	for _, l := range listeners {
		h, p, err := net.SplitHostPort(l.Addr)
		token := l.Token.Reveal()
		if err != nil || token == "" || isLoopback(h) && !isLocal(host) {
			continue
		}
		if p == port {
			return token
		}
		first = cmp.Or(first, token)
	}
	if isLocal(host) {
		return first
	}
	return ""
}

func isLoopback(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "localhost" || ip.Unmap().IsLoopback()
}

// isLocal reports whether connections to the host stay on this machine, as those to the
// unspecified address do (net.Dial).
func isLocal(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "" || ip.IsUnspecified() || isLoopback(host)
}

// whole is the absolute path.
func whole(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
