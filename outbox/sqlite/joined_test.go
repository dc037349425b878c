package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
	"pgregory.net/rapid"
)

// Whatever SQLite writes to its log is read again as it was written, and what is committed was handed to
// the system.
func TestJoinedLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const page = 64
		size := func(frames int) int64 { return 32 + int64(frames)*(frameHeader+page) }
		under := &crashHandle{fs: &crashFS{}, file: &crashFile{dirty: map[int64]struct{}{}}}
		log := &joinedLog{joinedFile: joinedFile{File: under}}
		var want []byte // the file as SQLite knows it
		write := func(p []byte, off int64) {
			want = extend(want, off+int64(len(p)))
			copy(want[off:], p)
			if n, err := log.WriteAt(p, off); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		fill := func(n int) []byte { return bytes.Repeat([]byte{rapid.Byte().Draw(t, "content")}, n) }
		header := func(at int, last bool) {
			b := fill(frameHeader)
			binary.BigEndian.PutUint32(b[4:], 0)
			if last {
				binary.BigEndian.PutUint32(b[4:], 1)
			}
			write(b, size(at))
		}
		write(fill(32), 0)
		committed := 0 // frames
		for range 30 {
			switch rapid.SampledFrom([]string{"commit", "commit", "mended", "rolled back", "again", "read", "sync", "size", "truncate"}).Draw(t, "what") {
			case "commit", "mended":
				n := rapid.IntRange(1, 5).Draw(t, "frames")
				mended := rapid.IntRange(0, n).Draw(t, "mended") // a page that is written twice, and the headers after it
				for i := range n {
					header(committed+i, i == n-1)
					if i == n-1 && mended < i {
						write(fill(page), size(committed+mended)+frameHeader)
					}
					write(fill(page), size(committed+i)+frameHeader)
				}
				for i := mended; i < n-1; i++ {
					header(committed+i, false)
				}
				if mended < n {
					header(committed+n-1, true)
				}
				committed += n
			case "rolled back":
				for i := range rapid.IntRange(1, 5).Draw(t, "frames") {
					header(committed+i, false)
					write(fill(page), size(committed+i)+frameHeader)
				}
				continue
			case "again":
				committed = 0
				write(fill(32), 0)
			case "read":
				off := rapid.IntRange(0, len(want)).Draw(t, "offset")
				got := make([]byte, rapid.IntRange(0, len(want)-off).Draw(t, "length"))
				if _, err := log.ReadAt(got, int64(off)); err != nil && len(got) > 0 || !bytes.Equal(got, want[off:off+len(got)]) {
					t.Fatalf("read %x at %d, want %x: %v", got, off, want[off:off+len(got)], err)
				}
				continue
			case "sync":
				if err := log.Sync(vfs.SYNC_DATAONLY); err != nil || !bytes.Equal(under.file.disk, want) {
					t.Fatalf("synced are %x, want %x: %v", under.file.disk, want, err)
				}
			case "size":
				if got, err := log.Size(); got != int64(len(want)) || err != nil {
					t.Fatalf("the size is %d, want %d: %v", got, len(want), err)
				}
			case "truncate":
				want = want[:size(committed)]
				if err := log.Truncate(size(committed)); err != nil {
					t.Fatal(err)
				}
			}
			if seen := under.file.seen; len(seen) < int(size(committed)) || !bytes.Equal(seen[:size(committed)], want[:size(committed)]) {
				t.Fatalf("the system has %x, want %x", seen, want[:size(committed)])
			}
		}
	})
}

// A checkpoint writes pages that lie side by side at once, and leaves none of them out.
func TestCheckpointWritesAtOnce(t *testing.T) {
	fs := newCrashFS(t)
	s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), raise: time.Hour})
	for i := range 200 {
		mustAccept(t, s, sized(fmt.Sprintf("evt_%d", i), 1<<10, "a"))
	}
	writes := 0
	fs.mu.Lock()
	fs.fault = func(op, file string) error {
		if op == "write" && !strings.HasSuffix(file, "-wal") {
			writes++
		}
		return nil
	}
	fs.mu.Unlock()
	pages := int64(0)
	err := s.do(t.Context(), func() (err error) {
		if err = s.db.checkpoint(sqlite3.CHECKPOINT_PASSIVE); err == nil {
			pages, _, err = s.db.used()
		}
		return err
	})
	if err != nil || pages < 50 || writes == 0 || writes > 10 {
		t.Errorf("a checkpoint of %d pages took %d writes, want 1 to 10: %v", pages, writes, err)
	}
	copied := fs.clone()
	for name := range copied.files {
		if strings.HasSuffix(name, "-wal") {
			delete(copied.files, name)
		}
	}
	vfs.Register(t.Name()+" copied", copied)
	defer vfs.Unregister(t.Name() + " copied")
	d, err := connect(s.db.path, t.Name()+" copied")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.setup(); err != nil {
		t.Fatal(err)
	}
	events, err := d.number("SELECT count(*) FROM event")
	if err = errors.Join(err, d.close()); events != 200 || err != nil {
		t.Errorf("%d events are in the file without its log, want 200: %v", events, err)
	}
}

// Files that join writes do not offer what the system's file has of its own, such as transactions without a journal.
func TestJoinedFileOffersNoAtomicWrites(t *testing.T) {
	fs := newCrashFS(t)
	fs.can = vfs.IOCAP_BATCH_ATOMIC
	for _, kind := range []vfs.OpenFlag{vfs.OPEN_MAIN_DB, vfs.OPEN_WAL} {
		f, _, err := vfs.Find(registerJoined(t.Name())).Open("x", kind|vfs.OPEN_CREATE|vfs.OPEN_READWRITE)
		if err != nil {
			t.Fatal(err)
		}
		if c := f.DeviceCharacteristics(); c != vfs.IOCAP_POWERSAFE_OVERWRITE {
			t.Errorf("a file of kind %#x offers %#x", kind, c)
		}
	}
}

// A disk that is full when what waits is written is no failed sync, which would break the store.
func TestFullDiskAtSync(t *testing.T) {
	under := &crashHandle{fs: &crashFS{capacity: func() int64 { return 0 }}, file: &crashFile{dirty: map[int64]struct{}{}}}
	f := &joinedFile{File: under}
	if _, err := f.WriteAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(vfs.SYNC_DATAONLY); !errors.Is(err, vfs.SystemError(error(syscall.ENOSPC), sqlite3.IOERR_WRITE)) {
		t.Errorf("the error is %v, want that of the write", err)
	}
	if err := f.Sync(vfs.SYNC_DATAONLY); err != nil {
		t.Errorf("a write that failed is tried again: %v", err)
	}
}
