package sqlite

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// crashFS is a file system in memory that can lose power. It knows for each
// sector whether it was synced; a cut drops what was not, or lets some of it survive.
// It is a VFS for SQLite; handles opened before a cut fail after it.
type crashFS struct {
	mu    sync.Mutex
	files map[string]*crashFile
	era   int // raised by each cut

	syncs, writes int
	fault         func(op string, file string) error // asked before each write, truncate and sync
	capacity      func() int64                       // of all files together, nil for no limit
	can           vfs.DeviceCharacteristic           // beside what every disk of today can
}

const sectorSize = 512

// crashFile is one file: as programs see it, and as it is on the disk.
type crashFile struct {
	seen, disk []byte
	dirty      map[int64]struct{} // sectors that differ
}

// newCrashFS registers a file system for as long as the test runs.
func newCrashFS(t testing.TB) *crashFS {
	fs := &crashFS{files: map[string]*crashFile{}}
	vfs.Register(t.Name(), fs)
	t.Cleanup(func() { vfs.Unregister(t.Name()) })
	return fs
}

// clone is a copy of the files that nobody has open.
func (fs *crashFS) clone() *crashFS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	files := map[string]*crashFile{}
	for name, f := range fs.files {
		files[name] = &crashFile{seen: slices.Clone(f.seen), disk: slices.Clone(f.disk), dirty: maps.Clone(f.dirty)}
	}
	return &crashFS{files: files}
}

// cut ends the power, amid an operation. Each unsynced sector survives with the
// given chance.
func (fs *crashFS) cut(random *rand.Rand, survival float64) {
	fs.era++
	fs.fault, fs.capacity = nil, nil
	for _, name := range slices.Sorted(maps.Keys(fs.files)) {
		f := fs.files[name]
		for _, sector := range slices.Sorted(maps.Keys(f.dirty)) {
			if random.Float64() < survival {
				f.flush(sector)
			}
		}
		fs.files[name] = &crashFile{seen: slices.Clone(f.disk), disk: f.disk, dirty: map[int64]struct{}{}}
	}
}

// flush brings one sector to the disk.
func (f *crashFile) flush(sector int64) {
	from := sector * sectorSize
	if from >= int64(len(f.seen)) {
		return // cut off meanwhile
	}
	to := min(from+sectorSize, int64(len(f.seen)))
	f.disk = extend(f.disk, to)
	copy(f.disk[from:to], f.seen[from:to])
}

// extend makes b at least size long.
func extend(b []byte, size int64) []byte {
	if grow := size - int64(len(b)); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	return b
}

// before asks for faults and counts.
func (fs *crashFS) before(op, file string, era int) error {
	if era != fs.era {
		return errDead
	}
	if fs.fault != nil {
		return fs.fault(op, file)
	}
	return nil
}

var errDead = errors.New("the power is off")

func (fs *crashFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[name]
	if f == nil {
		if flags&vfs.OPEN_CREATE == 0 {
			return nil, flags, sqlite3.CANTOPEN
		}
		f = &crashFile{dirty: map[int64]struct{}{}}
		fs.files[name] = f
	}
	return &crashHandle{fs: fs, name: name, file: f, era: fs.era}, flags, nil
}

func (fs *crashFS) Delete(name string, _ bool) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.files[name] == nil {
		return sqlite3.IOERR_DELETE_NOENT
	}
	delete(fs.files, name)
	return nil
}

func (fs *crashFS) Access(name string, _ vfs.AccessFlag) (bool, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.files[name] != nil, nil
}

func (fs *crashFS) FullPathname(name string) (string, error) { return name, nil }

// size is the bytes of all files.
func (fs *crashFS) size() (size int64) {
	for _, f := range fs.files {
		size += int64(len(f.seen))
	}
	return size
}

// crashHandle is an open file.
type crashHandle struct {
	fs   *crashFS
	name string
	file *crashFile
	era  int
}

func (h *crashHandle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.era != h.fs.era {
		return 0, errDead
	}
	if off >= int64(len(h.file.seen)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.seen[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *crashHandle) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.before("write", h.name, h.era); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	grow := max(end-int64(len(h.file.seen)), 0)
	if h.fs.capacity != nil && grow > 0 && h.fs.size()+grow > h.fs.capacity() {
		fits := max(int64(len(p))-max(h.fs.size()+grow-h.fs.capacity(), 0), 0) // a disk takes what it has room for
		h.write(p[:min(fits, int64(len(p)))], off)
		return int(fits), syscall.ENOSPC
	}
	h.fs.writes++
	h.write(p, off)
	return len(p), nil
}

func (h *crashHandle) write(p []byte, off int64) {
	end := off + int64(len(p))
	h.file.seen = extend(h.file.seen, end)
	copy(h.file.seen[off:], p)
	for sector := off / sectorSize; sector*sectorSize < end; sector++ {
		h.file.dirty[sector] = struct{}{}
	}
}

func (h *crashHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.before("truncate", h.name, h.era); err != nil {
		return err
	}
	h.file.seen = extend(h.file.seen, size)[:size:size]
	return nil
}

func (h *crashHandle) Sync(vfs.SyncFlag) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.before("sync", h.name, h.era); err != nil {
		return err
	}
	h.fs.syncs++
	for sector := range h.file.dirty {
		h.file.flush(sector)
	}
	clear(h.file.dirty)
	size := int64(len(h.file.seen))
	h.file.disk = extend(h.file.disk, size)[:size]
	return nil
}

func (h *crashHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.file.seen)), nil
}

func (h *crashHandle) Close() error                     { return nil }
func (h *crashHandle) Lock(vfs.LockLevel) error         { return nil }
func (h *crashHandle) Unlock(vfs.LockLevel) error       { return nil }
func (h *crashHandle) CheckReservedLock() (bool, error) { return false, nil }
func (h *crashHandle) SectorSize() int                  { return sectorSize }

func (h *crashHandle) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_POWERSAFE_OVERWRITE | h.fs.can
}
