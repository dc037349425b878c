package sqlite

import (
	"encoding/binary"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// SQLite writes each frame of the log by two calls, and each page of a checkpoint by one. The calls cost more than the bytes do,
// so what lies side by side in a file is handed to the system together.

const (
	frameHeader = 24        // bytes before the page of a frame
	gatherMost  = 256 << 10 // bytes that wait; more are written in parts
)

// registerJoined registers the file system of that name, "" for the system's, with files whose writes are joined. It returns
// the name that SQLite knows it by.
func registerJoined(name string) string {
	joined := "relay " + name
	vfs.Register(joined, joinedFS{vfs.Find(name)})
	return joined
}

type joinedFS struct{ vfs.VFS }

func (fs joinedFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpen(fs.VFS, name, flags)
	return joined(f, flags, err), out, err
}

// OpenFilename implements vfs.VFSFilename.
func (fs joinedFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(fs.VFS, name, flags)
	return joined(f, flags, err), out, err
}

func joined(f vfs.File, flags vfs.OpenFlag, err error) vfs.File {
	switch {
	case err != nil:
		return nil
	case flags&vfs.OPEN_WAL != 0:
		return &joinedLog{joinedFile: joinedFile{File: f}}
	case flags&vfs.OPEN_MAIN_DB != 0:
		return &joinedFile{File: f}
	}
	return f
}

// joinedFile is a file whose writes wait until one comes that belongs elsewhere, or until the file is to be read, cut or synced.
// An error comes with that call.
//
// There is one connection, and it has the file for itself (locking_mode EXCLUSIVE): no reader holds a checkpoint back, so each copies
// all of the log, and cuts and syncs the file before it counts. With another connection a checkpoint might end without.
type joinedFile struct {
	vfs.File
	waiting []byte
	at      int64 // place of what waits
}

// WriteAt implements vfs.File.
func (f *joinedFile) WriteAt(p []byte, off int64) (int, error) {
	if off != f.at+int64(len(f.waiting)) || len(f.waiting) >= gatherMost {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if len(f.waiting) == 0 {
		f.at = off
	}
	f.waiting = append(f.waiting, p...)
	return len(p), nil
}

// flush writes what waits.
func (f *joinedFile) flush() error {
	if len(f.waiting) == 0 {
		return nil
	}
	b := f.waiting
	f.waiting = b[:0]
	_, err := f.File.WriteAt(b, f.at)
	return vfs.SystemError(err, sqlite3.IOERR_WRITE) // also of a call that is no write
}

// ReadAt implements vfs.File.
func (f *joinedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// Truncate implements vfs.File.
func (f *joinedFile) Truncate(size int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Sync implements vfs.File.
func (f *joinedFile) Sync(flags vfs.SyncFlag) error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Sync(flags)
}

// Size implements vfs.File.
func (f *joinedFile) Size() (int64, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.File.Size()
}

// DeviceCharacteristics implements vfs.File. Some file systems (F2FS) write a transaction as one without a journal, by calls
// that a joinedFile does not have.
func (f *joinedFile) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return f.File.DeviceCharacteristics() &^ vfs.IOCAP_BATCH_ATOMIC
}

// SizeHint implements vfs.FileSizeHint.
func (f *joinedFile) SizeHint(size int64) error { return vfsutil.WrapSizeHint(f.File, size) }

// joinedLog is the write-ahead log. The frames of a transaction wait for its last one, with which all are written before
// SQLite says that it is committed. See https://sqlite.org/fileformat2.html#walformat.
type joinedLog struct {
	joinedFile
	end   int64 // of what was written since the log began again
	frame frame // whose page comes next
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
	case len(p) != frameHeader:
	case binary.BigEndian.Uint32(p[4:]) == 0: // "size of the database file in pages" is that of the last frame
		f.frame = inner
	default:
		f.frame = lastFrame
	}
	f.end = max(f.end, off+int64(len(p)))
	if _, err := f.joinedFile.WriteAt(p, off); err != nil || len(p) == frameHeader && f.frame != noFrame || f.frame == inner {
		return len(p), err
	}
	f.frame = noFrame
	return len(p), f.flush()
}

// Truncate implements vfs.File.
func (f *joinedLog) Truncate(size int64) error {
	f.end = min(f.end, size)
	return f.joinedFile.Truncate(size)
}
