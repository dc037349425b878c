package admin

import "sync"

// Crowd counts requests that go on for long, which are bounded. Those of accesses that are bound to tenants or endpoints leave a
// quarter to others, and one of them has a quarter at most, so that no customer keeps others out.
type Crowd struct {
	most int

	mu    sync.Mutex
	all   int
	bound int
	of    map[string]int // bound ones, by the name of their access
}

// NewCrowd makes one with room for so many.
func NewCrowd(most int) *Crowd { return &Crowd{most: most, of: map[string]int{}} }

// Enter counts one more, until leave is called; ok is false if there is no room.
func (c *Crowd) Enter(a *Access) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.bound() {
		if c.all >= c.most {
			return nil, false
		}
		c.all++
		return func() { c.leave("") }, true
	}
	share := c.most / 4
	if c.all >= c.most || c.bound >= c.most-share || c.of[a.Name] >= share {
		return nil, false
	}
	c.all++
	c.bound++
	c.of[a.Name]++
	return func() { c.leave(a.Name) }, true
}

// leave takes one out; name is that of a bound access, "" for others.
func (c *Crowd) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if name == "" {
		return
	}
	c.bound--
	if c.of[name]--; c.of[name] == 0 {
		delete(c.of, name)
	}
}
