package sqlite

import (
	"encoding/binary"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// SQLite writes each frame of the log by two calls, which cost more than the bytes do. A joinedLog hands the
// frames of a transaction to the system together.

const (
	frameHeader = 24        // bytes before the page of a frame
	gatherMost  = 256 << 10 // bytes that wait; a longer transaction is written in parts
)

// registerJoined registers the file system of that name, "" for the system's, with a log whose writes are joined. It returns
// the name that SQLite knows it by.
func registerJoined(name string) string {
	joined := "relay " + name
	vfs.Register(joined, joinedFS{vfs.Find(name)})
	return joined
}

type joinedFS struct{ vfs.VFS }

func (fs joinedFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return joinWrites(vfsutil.WrapOpen(fs.VFS, name, flags))
}

// OpenFilename implements vfs.VFSFilename.
func (fs joinedFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return joinWrites(vfsutil.WrapOpenFilename(fs.VFS, name, flags))
}

func joinWrites(f vfs.File, flags vfs.OpenFlag, err error) (vfs.File, vfs.OpenFlag, error) {
	if err == nil && flags&vfs.OPEN_WAL != 0 {
		f = &joinedLog{File: f}
	}
	return f, flags, err
}

// joinedLog is the write-ahead log. What SQLite takes for written before the last frame of a transaction is, may not be:
// an error then comes with a later write, and ends the same transaction. See https://sqlite.org/fileformat2.html#walformat.
type joinedLog struct {
	vfs.File
	waiting []byte // frames of a transaction
	at      int64  // their place
	end     int64  // of what was written since the log began anew
	frame   frame  // whose page comes next
}

// frame is a kind of frame.
type frame int

const (
	noFrame   frame = iota
	inner           // others of the transaction follow
	lastFrame       // the transaction is committed by it
)

// WriteAt implements vfs.File.
func (f *joinedLog) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case off == 0: // the header of the log
		f.frame, f.end = noFrame, 0
	case off < f.end:
		f.frame = noFrame // SQLite mends what it wrote
	case len(p) == frameHeader && binary.BigEndian.Uint32(p[4:]) == 0: // see "size of the database file in pages"
		f.frame = inner
	case len(p) == frameHeader:
		f.frame = lastFrame
	}
	if f.frame == noFrame || off != f.at+int64(len(f.waiting)) {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if f.frame == noFrame {
		f.end = max(f.end, off+int64(len(p)))
		return f.File.WriteAt(p, off)
	}
	if len(f.waiting) == 0 {
		f.at = off
	}
	f.waiting = append(f.waiting, p...)
	if len(p) == frameHeader || f.frame == inner && len(f.waiting) < gatherMost {
		return len(p), nil
	}
	f.frame = noFrame
	if err := f.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what waits.
func (f *joinedLog) flush() error {
	if len(f.waiting) == 0 {
		return nil
	}
	b := f.waiting
	f.waiting = b[:0]
	f.end = max(f.end, f.at+int64(len(b)))
	_, err := f.File.WriteAt(b, f.at)
	return err
}

// ReadAt implements vfs.File.
func (f *joinedLog) ReadAt(p []byte, off int64) (int, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// Truncate implements vfs.File.
func (f *joinedLog) Truncate(size int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	f.end = min(f.end, size)
	return f.File.Truncate(size)
}

// Sync implements vfs.File.
func (f *joinedLog) Sync(flags vfs.SyncFlag) error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Sync(flags)
}

// Size implements vfs.File.
func (f *joinedLog) Size() (int64, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.File.Size()
}
