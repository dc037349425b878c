package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// slots is how many slots a cluster has.
const slots = 16384

// Cluster is a Redis Cluster. A master that is down for 2 s is replaced by a
// replica, if it has one; without one, the cluster refuses all commands.
type Cluster struct {
	t     testing.TB
	nodes []*Server
	ids   map[*Server]string
}

// StartCluster starts masters with an even share of the slots each, and for each
// as many replicas as asked for. It waits until all nodes call the cluster ok. Node(i) is a
// master for i < masters; its replicas are Node(i+masters), Node(i+2*masters), ….
// The args are for every node, as for Start, but without a password.
func StartCluster(t testing.TB, masters, replicas int, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: map[*Server]string{}}
	for i := range masters * (1 + replicas) {
		s := Start(t, append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}, args...)...)
		c.nodes = append(c.nodes, s)
		c.ids[s] = fmt.Sprint(s.MustDo(t, "CLUSTER", "MYID"))
		s.MustDo(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < masters {
			first, end := slots*i/masters, slots*(i+1)/masters
			s.MustDo(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(end-1))
		}
	}
	for i, s := range c.nodes {
		for _, other := range c.nodes[i+1:] {
			s.MustDo(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port))
		}
	}
	size, known := strconv.Itoa(masters), strconv.Itoa(len(c.nodes))
	c.wait("nodes to know each other", func() error { return c.each(map[string]string{"cluster_known_nodes": known}) })
	for i, s := range c.nodes[masters:] {
		// The node may have heard of its master, yet not have shaken hands with it.
		c.wait("replica to follow", func() error {
			_, err := s.Do("CLUSTER", "REPLICATE", c.ids[c.nodes[i%masters]])
			return err
		})
	}
	c.wait("replicas to be in sync", func() error { return inSync(c.nodes[masters:]) })
	c.wait("cluster to be ok", func() error {
		return c.each(map[string]string{"cluster_state": "ok", "cluster_size": size, "cluster_known_nodes": known})
	})
	return c
}

// each compares every node's CLUSTER INFO.
func (c *Cluster) each(want map[string]string) error {
	for _, s := range c.nodes {
		info, err := s.Do("CLUSTER", "INFO")
		if err != nil {
			return err
		}
		got := map[string]string{"name": s.Addr()}
		for name := range want {
			got[name] = infoField(info, name)
		}
		if err := compare(got, want); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) wait(what string, ask func() error) {
	c.t.Helper()
	if err := poll(ask); err != nil {
		c.t.Fatalf("wait for %s: %v", what, err)
	}
}

// Addrs are the addresses of all nodes, host:port.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, s := range c.nodes {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Node is node i.
func (c *Cluster) Node(i int) *Server { return c.nodes[i] }

// Slot is the slot of a key: a CRC16 of the key or, where it has one that is not
// empty, of its hash tag in braces.
func (c *Cluster) Slot(key string) int {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc >> 15
			crc = crc<<1 ^ carry*0x1021
		}
	}
	return int(crc) % slots
}

// Owner is the node that serves a slot: the newest of those that say so. Dead
// nodes are not asked.
func (c *Cluster) Owner(slot int) *Server {
	c.t.Helper()
	var owner *Server
	c.wait(fmt.Sprintf("an owner of slot %d", slot), func() error {
		newest := -1
		for _, s := range c.nodes {
			own, err := c.view(s, s)
			if err == nil && own.has(slot) && own.epoch > newest {
				owner, newest = s, own.epoch
			}
		}
		if owner == nil {
			return errors.New("no node that answers has it")
		}
		return nil
	})
	return owner
}

// nodeView is what one node says of another, or of itself.
type nodeView struct {
	master bool
	epoch  int
	ranges []string // "0-5460" or "17"; "[17->-…" while it moves
}

func (v nodeView) has(slot int) bool {
	return v.master && slices.ContainsFunc(v.ranges, func(r string) bool {
		first, last, ok := strings.Cut(r, "-")
		if !ok {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		return err1 == nil && err2 == nil && from <= slot && slot <= to
	})
}

// view asks one node about another.
func (c *Cluster) view(asked, about *Server) (nodeView, error) {
	reply, err := asked.Do("CLUSTER", "NODES")
	if err != nil {
		return nodeView{}, err
	}
	for line := range strings.Lines(fmt.Sprint(reply)) {
		// id, address, flags, its master, ping, pong, epoch, link, slots …
		if f := strings.Fields(line); len(f) >= 8 && f[0] == c.ids[about] {
			epoch, _ := strconv.Atoi(f[6])
			return nodeView{master: strings.Contains(f[2], "master"), epoch: epoch, ranges: f[8:]}, nil
		}
	}
	return nodeView{}, fmt.Errorf("%s does not know %s", asked.Addr(), about.Addr())
}

// MoveSlot moves a slot and its keys to another master, while clients go on.
func (c *Cluster) MoveSlot(slot int, to *Server) {
	c.t.Helper()
	c.BeginMove(slot, to)
	c.FinishMove(slot, to)
}

// BeginMove opens a slot for moving and moves nothing yet: its owner serves the
// keys that it has and sends clients to the other master, by ASK, for the others.
func (c *Cluster) BeginMove(slot int, to *Server) {
	c.t.Helper()
	from := c.Owner(slot)
	if from == to {
		c.t.Fatalf("move slot %d: %s has it already", slot, to.Addr())
	}
	c.setSlot(to, slot, "IMPORTING", from)
	c.setSlot(from, slot, "MIGRATING", to)
}

// setSlot tells a node about a slot. A node that has not heard of a failover yet
// refuses its new master, so it is told until it takes it.
func (c *Cluster) setSlot(told *Server, slot int, state string, other *Server) {
	c.t.Helper()
	c.wait(fmt.Sprintf("%s to take %s for slot %d", told.Addr(), state, slot), func() error {
		_, err := told.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), state, c.ids[other])
		return err
	})
}

// MoveKeys moves up to n keys of a slot that BeginMove opened, and returns how
// many it moved. With some of its keys there and some here, a slot answers
// TRYAGAIN to commands on both.
func (c *Cluster) MoveKeys(slot int, to *Server, n int) int {
	c.t.Helper()
	return c.moveKeys(c.Owner(slot), slot, to, n)
}

func (c *Cluster) moveKeys(from *Server, slot int, to *Server, n int) int {
	c.t.Helper()
	reply := from.MustDo(c.t, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), strconv.Itoa(n))
	keys, _ := reply.([]any)
	if len(keys) == 0 {
		return 0
	}
	// REPLACE: a repeat after an error may find the key there.
	migrate := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port), "", "0", "5000", "REPLACE", "KEYS"}
	for _, key := range keys {
		migrate = append(migrate, fmt.Sprint(key))
	}
	c.wait("keys to move", func() error {
		_, err := from.Do(migrate...)
		return err
	})
	return len(keys)
}

// FinishMove moves the keys that are left, makes the other master the owner, and
// waits until every node that answers knows it.
func (c *Cluster) FinishMove(slot int, to *Server) {
	c.t.Helper()
	from := c.Owner(slot)
	for c.moveKeys(from, slot, to, 100) > 0 {
	}
	// First the new owner, then the old: the other way round, nobody would have the
	// slot if the move broke off between them.
	c.setSlot(to, slot, "NODE", to)
	c.setSlot(from, slot, "NODE", to)
	for _, s := range c.nodes {
		if s != to && s != from {
			// A replica refuses, and a dead node does not answer: they hear of it from the others.
			_, _ = s.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", c.ids[to])
		}
	}
	c.wait("nodes to know the slot's owner", func() error {
		for _, s := range c.nodes {
			if s.process().ended() {
				continue
			}
			view, err := c.view(s, to)
			if err != nil {
				return err
			}
			if !view.has(slot) {
				return fmt.Errorf("%s does not say that slot %d is at %s", s.Addr(), slot, to.Addr())
			}
		}
		return nil
	})
}
