package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"relay/internal/access"
)

// RunFile is the name of the run file. It is beside the outbox of sqlite and in the state folder,
// and only there with an outbox "redis".
const RunFile = "relay.run"

// maxRunFile is above the size of any run file, in bytes.
const maxRunFile = 1 << 20

// Running is the content of a run file: enough to talk to its Relay without the configuration,
// and no secrets.
type Running struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	Config  []string  `json:"config"` // absolute paths of the files that it was started with
	Outbox  string    `json:"outbox"` // absolute path of the folder, or place of the server
	Admin   []string  `json:"admin"`  // addresses as ParseAddr reads them, sockets first
	Ingest  []string  `json:"ingest"`
	MaxBody int64     `json:"max_body"` // bytes of one request to ingest

	path string // of the file it was read from
}

// Published is a run file that exists until Close. It is locked. The kernel releases the lock of
// a process that dies, so a stale run file is recognised even if another process, in this
// container or another one, has the same number.
type Published struct {
	path string
	file fs.FileInfo
	lock *flock.Flock
	made string // the folder, if it was made for the file
}

// ErrInUse says that another running Relay has its run file there.
var ErrInUse = errors.New("another Relay has its run file there")

// Publish writes the run file into a folder, which is made if it is missing. All users who can
// enter the folder can read it. It is written atomically and replaces a stale one. The run file
// of a running Relay stays (ErrInUse), unless this Relay follows that one.
func (r Running) Publish(dir string) (_ *Published, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	p := &Published{path: filepath.Join(dir, RunFile)}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", access.Explain(err, dir))
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		p.made = dir
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make folder: %w", access.Explain(err, dir))
	}
	if before, live, err := read(dir); err == nil && live && !r.follows(before) {
		return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
	}
	if err := r.write(p); err != nil {
		return nil, errors.Join(fmt.Errorf("write run file: %w", access.Explain(err, dir)), p.leave())
	}
	return p, nil
}

// follows reports whether another Relay must be about to end, because it has the same outbox
// folder or files, which only one Relay can use at a time.
func (r Running) follows(before Running) bool {
	return before.Outbox == r.Outbox && (filepath.IsAbs(r.Outbox) || slices.Equal(before.Config, r.Config))
}

// write makes the file under another name, locks it and gives it its name.
func (r Running) write(p *Published) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(p.path), "."+RunFile+"-*")
	if err != nil {
		return err
	}
	p.lock = flock.New(f.Name())
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask
	if err == nil {
		_, err = p.lock.TryLock()
	}
	if err == nil {
		p.file, err = os.Stat(f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), p.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Close removes the run file, unless another Relay has replaced it, and the folder if it was made
// for the file and is empty.
func (p *Published) Close() error {
	var err error
	if now, e := os.Lstat(p.path); e == nil && os.SameFile(now, p.file) {
		err = os.Remove(p.path)
	}
	return errors.Join(err, p.leave())
}

func (p *Published) leave() (err error) {
	if p.lock != nil {
		err = p.lock.Close()
	}
	if p.made != "" {
		_ = os.Remove(p.made) // fails when something is in it
	}
	return err
}

// read reads the run file of a folder and reports whether its Relay still runs. A file that
// another user could have written is an error, because a token may be sent to the addresses in
// it.
func read(dir string) (r Running, live bool, err error) {
	r.path = filepath.Join(dir, RunFile)
	info, err := os.Lstat(r.path)
	if err != nil {
		return r, false, err
	}
	folder, err := os.Stat(dir)
	if err != nil {
		return r, false, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || !trusted(info, folder) {
		return r, false, fmt.Errorf("%s may have been written by another user: it is not used", r.path)
	}
	f, err := os.Open(r.path)
	if err != nil {
		return r, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRunFile))
	if err != nil {
		return r, false, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, false, fmt.Errorf("read %s: %w", r.path, err)
	}
	lock := flock.New(r.path, flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	if err != nil {
		return r, true, nil // no locks on this file system: the answer will show it
	}
	return r, !free, lock.Close()
}

// trusted reports whether a file belongs to this user, to root, or to the owner of its folder;
// root trusts every user who can write there.
func trusted(file, folder fs.FileInfo) bool {
	return believed(access.Of(file).UID, access.Of(folder).UID, os.Geteuid())
}

func believed(file, folder, me int) bool {
	return me == 0 || file == 0 || file == me || file == folder
}
