package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/gofrs/flock"

	"relay/internal/access"
)

// Finding is one thing that Probe saw of an outbox.
type Finding struct {
	Level string // "refuse": an Open fails, or no event is accepted; "warn"; "ok"
	What  string
	Next  string // what to do; "" when nothing is
}

// The levels of a Finding.
const (
	levelRefuse = "refuse"
	levelWarn   = "warn"
	levelOK     = "ok"
)

// Probe looks at the outbox in o.Dir, which another process may have open. It changes nothing.
// What is not there yet has no findings.
func Probe(o Options) []Finding {
	p := &probe{o: o}
	if p.o.MaxSize == 0 {
		p.o.MaxSize = DefaultMaxSize
	}
	p.place()
	p.access()
	p.database()
	p.disk()
	p.clock()
	p.owner()
	return p.found
}

type probe struct {
	o     Options
	size  int64 // bytes of the database file
	found []Finding
}

func (p *probe) add(level, what, next string) {
	p.found = append(p.found, Finding{level, what, next})
}

// nearest is the folder, or the one above it in which it will be made.
func (p *probe) nearest() string {
	dir := p.o.Dir
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func (p *probe) place() {
	if why := unsafeFS(p.nearest()); why != "" {
		p.add(levelWarn, fmt.Sprintf("the folder %s is no safe place: %s", p.o.Dir, why), "give the outbox a local disk: path in the outbox block")
	}
}

// access looks at modes and owners.
func (p *probe) access() {
	us := access.Us()
	for _, name := range []string{"", databaseFile, logFile, lockFile} {
		path := filepath.Join(p.o.Dir, name)
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			p.add(levelRefuse, fmt.Sprintf("%s cannot be reached: %v", path, access.Explain(err, p.o.Dir)), "run relay as the user that has the outbox, or give it to this one")
			return
		}
		if name != "" {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				p.add(levelRefuse, fmt.Sprintf("%s cannot be opened: %v", path, access.Explain(err, p.o.Dir)), "run relay as the user that has the outbox, or give it to this one")
				continue
			}
			f.Close()
		}
		if wide := access.Wide(path, access.Of(info), us); wide != "" {
			p.add(levelWarn, "other users can get at events: "+wide, "take the rights of other users away, as said")
		}
	}
}

// The header of a database: https://sqlite.org/fileformat.html, section 1.3.
const (
	headerSize  = 100
	headerMagic = "SQLite format 3\x00"
)

// database looks at the file's header: is it an outbox of this format, and how full is it?
func (p *probe) database() {
	path := filepath.Join(p.o.Dir, databaseFile)
	f, err := os.Open(path)
	if err != nil {
		return // access said why, or it is not there
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		p.size = info.Size()
	}
	head := make([]byte, headerSize)
	switch n, err := io.ReadFull(f, head); {
	case n == 0:
		return // made, and never written
	case err != nil || string(head[:len(headerMagic)]) != headerMagic:
		p.add(levelRefuse, path+" is no database: it is damaged, or another program's", "keep a copy of it, and move it away or choose another path; relay deletes nothing")
		return
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint32(head[at:])) }
	if err := readable(number(68), number(60)); err != nil {
		what, next, _ := strings.Cut(err.Error(), "; ")
		p.add(levelRefuse, path+": "+what, next)
		return
	}
	p.add(levelOK, fmt.Sprintf("the outbox has format version %d", formatVersion), "")
	size := int64(binary.BigEndian.Uint16(head[16:]))
	if size == 1 {
		size = 64 << 10
	}
	p.fill((p.size/max(size, 1) - number(36)) * size)
}

// fill judges how many bytes of max_size are in use. The log, which is copied later, is not
// counted.
func (p *probe) fill(used int64) {
	share := float64(used) / float64(p.o.MaxSize)
	what := fmt.Sprintf("%.0f %% of max_size (%s) are in use", 100*share, humanize.IBytes(uint64(p.o.MaxSize)))
	next := "raise max_size, shorten retention, or see with relay endpoints whose deliveries wait"
	switch {
	case share >= 15.0/16:
		p.add(levelRefuse, what+": events are refused with 507", next)
	case share >= 0.75:
		p.add(levelWarn, what+": delivered events go before their retention ends, and when it is full events are refused", next)
	default:
		p.add(levelOK, what, "")
	}
}

func (p *probe) disk() {
	free := p.o.free
	if free == nil {
		free = func() (int64, error) { return freeSpace(p.nearest()) }
	}
	n, err := free()
	if err != nil {
		return
	}
	what := fmt.Sprintf("the disk of %s has %s free", p.o.Dir, humanize.IBytes(uint64(n)))
	switch grow := p.o.MaxSize - p.size; {
	case n < minFree:
		p.add(levelRefuse, fmt.Sprintf("%s: with less than %s events are refused with 507", what, humanize.IBytes(minFree)), "free space, or move the outbox to a larger disk")
	case n < grow:
		p.add(levelWarn, fmt.Sprintf("%s, and the outbox may grow by %s: the disk is full before max_size is reached", what, humanize.IBytes(uint64(grow))),
			"set max_size below what the disk has, or use a larger disk")
	default:
		p.add(levelOK, what, "")
	}
}

// clockSlack is by how much the times of files may be ahead.
const clockSlack = 5 * time.Second

// clock compares the wall clock with the last writes.
func (p *probe) clock() {
	now := time.Now()
	if p.o.wall != nil {
		now = p.o.wall()
	}
	for _, name := range []string{databaseFile, logFile} {
		info, err := os.Stat(filepath.Join(p.o.Dir, name))
		if err != nil {
			continue
		}
		if ahead := info.ModTime().Sub(now); ahead > clockSlack {
			p.add(levelWarn, fmt.Sprintf("the outbox was written at %s, and this machine's clock says %s: the clock was set back, or is wrong by %s",
				info.ModTime().UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), ahead.Round(time.Second)),
				"set the clock (timedatectl, chronyc): receivers refuse signatures with a wrong time")
			return
		}
	}
}

// owner tells which process has the outbox open. It takes the lock for a moment, shared.
func (p *probe) owner() {
	path := filepath.Join(p.o.Dir, lockFile)
	if _, err := os.Stat(path); err != nil {
		return
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	defer lock.Close()
	switch {
	case err != nil:
		p.add(levelWarn, fmt.Sprintf("the lock of the outbox cannot be tried: %v", err), "use a file system with locks: without them two Relays may write to one outbox")
	case !free:
		pid, _ := os.ReadFile(path) // for the message only
		p.add(levelOK, fmt.Sprintf("process %s has the outbox open", pid), "")
	}
}
