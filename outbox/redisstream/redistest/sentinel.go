package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
)

// Sentinel is a master, its replicas, and three sentinels that watch them. A
// master that is down for 1 s is replaced, which takes a few seconds in all.
type Sentinel struct {
	t         testing.TB
	servers   []*Server
	sentinels []*Server
}

// StartSentinel starts them all and waits until every sentinel sees every server
// and every replica is in sync. The args are for the master and the replicas, as
// for Start, but without a password.
func StartSentinel(t testing.TB, replicas int, args ...string) *Sentinel {
	t.Helper()
	f := &Sentinel{t: t}
	master := Start(t, args...)
	f.servers = append(f.servers, master)
	for range replicas {
		f.servers = append(f.servers, Start(t, append([]string{"--replicaof", "127.0.0.1", strconv.Itoa(master.port)}, args...)...))
	}
	// A sentinel that starts too early looks for replicas again only after 10 s.
	f.wait("replicas to be in sync", func() error { return inSync(f.servers[1:]) })
	for range 3 {
		f.sentinels = append(f.sentinels, start(t, true, []string{
			"--sentinel", "monitor", f.Name(), "127.0.0.1", strconv.Itoa(master.port), "2",
			"--sentinel", "down-after-milliseconds", f.Name(), "1000",
			"--sentinel", "failover-timeout", f.Name(), "3000",
		}))
	}
	f.wait("sentinels to agree", func() error {
		for _, s := range f.sentinels {
			if err := f.sees(s, replicas); err != nil {
				return err
			}
		}
		return nil
	})
	return f
}

// sees tells what a sentinel lacks to a failover.
func (f *Sentinel) sees(s *Server, replicas int) error {
	reply, err := s.Do("SENTINEL", "MASTER", f.Name())
	if err != nil {
		return err
	}
	want := map[string]string{"flags": "master", "num-slaves": strconv.Itoa(replicas), "num-other-sentinels": "2"}
	if err := compare(fields(reply), want); err != nil {
		return err
	}
	reply, err = s.Do("SENTINEL", "REPLICAS", f.Name())
	if err != nil {
		return err
	}
	list, _ := reply.([]any)
	for _, replica := range list {
		if err := compare(fields(replica), map[string]string{"flags": "slave", "master-link-status": "ok"}); err != nil {
			return err
		}
	}
	_, err = s.Do("SENTINEL", "CKQUORUM", f.Name())
	return err
}

// fields makes a map of a reply that lists names and values in turn.
func fields(reply any) map[string]string {
	list, _ := reply.([]any)
	m := map[string]string{}
	for pair := range slices.Chunk(list, 2) {
		m[fmt.Sprint(pair[0])] = fmt.Sprint(pair[len(pair)-1])
	}
	return m
}

func compare(got, want map[string]string) error {
	for name, value := range want {
		if got[name] != value {
			return fmt.Errorf("%s has %s %q, want %q", got["name"], name, got[name], value)
		}
	}
	return nil
}

// inSync tells which replica has yet to catch up with its master.
func inSync(replicas []*Server) error {
	for _, s := range replicas {
		info, err := s.Do("INFO", "replication")
		if err != nil {
			return err
		}
		if link := infoField(info, "master_link_status"); link != "up" {
			return fmt.Errorf("%s: the link to its master is %q", s.Addr(), link)
		}
	}
	return nil
}

func (f *Sentinel) wait(what string, ask func() error) {
	f.t.Helper()
	if err := poll(ask); err != nil {
		f.t.Fatalf("wait for %s: %v", what, err)
	}
}

// Name is what the sentinels call the master.
func (f *Sentinel) Name() string { return "relay" }

// Sentinels are the sentinels' addresses, host:port.
func (f *Sentinel) Sentinels() []string {
	var addrs []string
	for _, s := range f.sentinels {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Master is the server that most sentinels name at this moment, dead or alive;
// while they disagree, it waits.
func (f *Sentinel) Master() *Server {
	f.t.Helper()
	var master *Server
	f.wait("most sentinels to name a master", func() (err error) {
		master, err = f.named()
		return err
	})
	return master
}

func (f *Sentinel) named() (*Server, error) {
	votes := map[string]int{}
	for _, s := range f.sentinels {
		reply, err := s.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", f.Name())
		if list, ok := reply.([]any); err == nil && ok {
			votes[fmt.Sprint(list[1])]++
		}
	}
	for _, s := range f.servers {
		if votes[strconv.Itoa(s.port)] >= 2 {
			return s, nil
		}
	}
	return nil, fmt.Errorf("they name %v", votes)
}

// WaitFailover waits until most sentinels name another master than old, and that
// server takes writes.
func (f *Sentinel) WaitFailover(old *Server) *Server {
	f.t.Helper()
	var master *Server
	f.wait("a failover from "+old.Addr(), func() (err error) {
		if master, err = f.named(); err != nil {
			return err
		}
		if master == old {
			return errors.New("it is the master still")
		}
		info, err := master.Do("INFO", "replication")
		if role := infoField(info, "role"); err == nil && role != "master" {
			err = fmt.Errorf("%s has the role %q", master.Addr(), role)
		}
		return err
	})
	return master
}

// Replicas are all servers but the master, dead or alive.
func (f *Sentinel) Replicas() []*Server {
	f.t.Helper()
	master := f.Master()
	return slices.DeleteFunc(slices.Clone(f.servers), func(s *Server) bool { return s == master })
}
