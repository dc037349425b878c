package redisstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/redis/go-redis/v9"
)

const (
	// slowAnswer is how long an answer takes from a server that is too far away, or busy.
	slowAnswer = 20 * time.Millisecond

	// answers is how many answers are timed.
	answers = 5
)

// Examine is Probe, and also looks at the server's clock, at how fast it answers, at its memory
// and at the format of what is kept in the namespace.
func Examine(ctx context.Context, o Options) (found Findings, err error) {
	c, err := connect(o)
	if err != nil {
		return Findings{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	found, err = probe(ctx, c, o)
	if err != nil || found.Refusal() != nil {
		return found, err
	}
	if err := found.kept(ctx, c, o); err != nil {
		return found, probeError(err)
	}
	masters, err := c.masters(ctx)
	if err != nil {
		return found, probeError(err)
	}
	for _, m := range masters {
		where := ""
		if len(masters) > 1 {
			where = m.Options().Addr + ": "
		}
		if err := found.answering(ctx, m, where); err != nil {
			return found, probeError(err)
		}
		if err := found.room(ctx, m, where); err != nil {
			return found, probeError(err)
		}
	}
	return found, nil
}

// kept looks at what the shards have: the format, and the share of max_size of the fullest one.
func (f *Findings) kept(ctx context.Context, c *conn, o Options) error {
	shards := max(1, o.Shards)
	fullest := 0.0
	for i := range shards {
		k := newKeys(o.Namespace, i)
		node, err := c.node(ctx, k.meta)
		if err != nil {
			return err
		}
		kept, err := node.HMGet(ctx, k.meta, "format", "bytes").Result()
		if err != nil {
			return err
		}
		if text, ok := kept[0].(string); ok {
			if err := readable(o.Namespace, text); err != nil {
				what, next, _ := strings.Cut(err.Error(), ": ")
				f.add(levelRefuse, what, next)
				return nil
			}
		}
		text, _ := kept[1].(string)
		if used, _ := strconv.ParseInt(text, 10, 64); o.MaxSize > 0 {
			fullest = max(fullest, float64(used)*float64(shards)/float64(o.MaxSize))
		}
	}
	if o.MaxSize > 0 {
		f.used(fullest, "max_size ("+humanize.IBytes(uint64(o.MaxSize))+")", "raise max_size, shorten retention, or see with relay endpoints whose deliveries wait")
	}
	return nil
}

// used judges a share of the room for events.
func (f *Findings) used(share float64, of, next string) {
	what := fmt.Sprintf("%.0f %% of %s are in use", 100*share, of)
	switch {
	case share >= 1:
		f.add(levelRefuse, what+": events are refused with 507", next)
	case share >= 0.75:
		f.add(levelWarn, what+": delivered events go before their retention ends, and when it is full events are refused", next)
	default:
		f.add(levelOK, what, "")
	}
}

// room looks at the server's memory, with all that others keep in it.
func (f *Findings) room(ctx context.Context, m *redis.Client, where string) error {
	text, err := m.Info(ctx, "memory").Result()
	if denied(err) {
		return nil // judge told it
	}
	if err != nil {
		return err
	}
	info := parseInfo(text)
	var mem memory
	mem.used, _ = strconv.ParseInt(info["used_memory"], 10, 64)
	mem.most, _ = strconv.ParseInt(info["maxmemory"], 10, 64)
	if mem.most > 0 {
		f.used(mem.share(), where+"what Redis may use ("+humanize.IBytes(uint64(mem.room()))+", its maxmemory but for the last sixteenth)",
			"raise maxmemory, or see what else is kept on this server")
	}
	return nil
}

// answering times some answers of the server, and compares its clock with this machine's.
func (f *Findings) answering(ctx context.Context, m *redis.Client, where string) error {
	var fastest, ahead time.Duration
	for i := range answers {
		sent := time.Now()
		theirs, err := m.Time(ctx).Result()
		if denied(err) {
			f.add(levelWarn, where+"the user may not run TIME, which Relay needs", "allow it with ACL SETUSER … +time")
			return nil
		}
		if err != nil {
			return err
		}
		if took := time.Since(sent); i == 0 || took < fastest {
			fastest, ahead = took, sent.Add(took/2).Sub(theirs)
		}
	}
	took := fmt.Sprintf("%sRedis answers in %s", where, fastest.Round(10*time.Microsecond))
	if fastest >= slowAnswer {
		f.add(levelWarn, took+": each event waits that long at least", "run Redis near Relay, and see what keeps it busy with SLOWLOG GET")
	} else {
		f.add(levelOK, took, "")
	}
	f.skew(ahead, where)
	return nil
}

// skew judges by how much the clock of this machine is ahead of the server's.
func (f *Findings) skew(ahead time.Duration, where string) {
	if ahead.Abs() < skewTell {
		f.add(levelOK, fmt.Sprintf("%sthe clocks of Redis and of this machine differ by %s", where, ahead.Abs().Round(time.Millisecond)), "")
		return
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	f.add(levelWarn, fmt.Sprintf("%sthe clock of this machine is %s %s that of Redis: retries go by Redis, signatures and the log by this machine", where, ahead.Abs().Round(time.Millisecond), side),
		"set the clock of this machine right, or that of Redis: receivers refuse signatures with a wrong time")
}
