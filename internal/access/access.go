// Package access judges modes and owners of Relay's files, and explains errors of permission: the
// folder, its owner and mode, this process's user, and the remedy.
//
// A folder is often another user's by design: Kubernetes gives a volume of fsGroup to a group,
// and after a change of the user files are the former one's. Such a folder is used when it can be
// read and written, and no advice may lock its user out.
package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// MaxSocketPath is what the kernel's address of a Unix socket holds, in bytes: 107 and a
// zero (unix(7)).
const MaxSocketPath = 107

// Facts are the owner, group and mode of a file or a folder.
type Facts struct {
	UID, GID int
	Mode     uint32 // permissions, with set-group-ID and sticky bit
}

// Of returns the Facts of a file.
func Of(info fs.FileInfo) Facts {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Facts{Mode: uint32(info.Mode().Perm())}
	}
	return Facts{UID: int(s.Uid), GID: int(s.Gid), Mode: uint32(s.Mode) & 0o7777}
}

func (f Facts) String() string { return fmt.Sprintf("owner %d:%d, mode %04o", f.UID, f.GID, f.Mode) }

// User is the user and the groups of a process.
type User struct {
	UID    int
	Groups []int // the effective one first
}

// Us is the user of this process.
func Us() User {
	groups, _ := os.Getgroups() // then only the effective one is known
	return User{UID: os.Geteuid(), Groups: append([]int{os.Getegid()}, groups...)}
}

// FileMode is the mode of a file that this user owns in a folder: for the owner, and also for the
// group if the folder belongs to another user and is open to the group, so that another user of
// the group can continue.
func FileMode(folder, file Facts, us User) fs.FileMode {
	if folder.UID != us.UID && folder.Mode&0o070 == 0o070 && file.GID == folder.GID {
		return 0o660
	}
	return 0o600
}

// Narrow gives a file in a folder its FileMode. A file of another user keeps its mode,
// which only the owner may change; wide is then advice if other users can use it, else "".
func Narrow(f *os.File, folder fs.FileInfo) (wide string, err error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	us, file := Us(), Of(info)
	if file.UID != us.UID {
		return Wide(f.Name(), file, us), nil
	}
	if want := FileMode(Of(folder), file, us); info.Mode().Perm() != want {
		return "", f.Chmod(want)
	}
	return "", nil
}

// Wide returns advice about a file or folder that other users can access, "" if none is needed.
// The advice never locks the user out.
func Wide(path string, f Facts, us User) string {
	others, group := f.Mode&0o007 != 0, f.Mode&0o070 != 0
	owned := f.UID == us.UID
	switch {
	case owned && (others || group):
		return fmt.Sprintf("%s has mode %04o: chmod %s keeps other users out", path, f.Mode, "go-rwx "+path)
	case !others:
		return "" // this user has access only by the group
	case us.UID == 0, slices.Contains(us.Groups, f.GID) && f.Mode&0o060 == 0o060:
		return fmt.Sprintf("%s has mode %04o and belongs to user %d: chmod o-rwx %s, by that user or root, keeps other users out", path, f.Mode, f.UID, path)
	}
	return fmt.Sprintf("%s has mode %04o and belongs to user %d: this process, user %d, gets in as everybody can; run this as user %d, or, if Relay is to run as user %d, chown %d %s, and then chmod go-rwx keeps other users out", path, f.Mode, f.UID, us.UID, f.UID, us.UID, us.UID, path)
}

// Explain adds owner and mode of a folder of Relay's, and a remedy, to an error of permission; it
// returns other errors unchanged. The folder need not exist.
func Explain(err error, folder string) error {
	return explain(err, folder, func(us User) string {
		info, e := os.Stat(folder)
		if e == nil && Of(info).UID == us.UID {
			return "chmod -R u+rwX " + folder
		}
		next := fmt.Sprintf("chown -R %d %s", us.UID, folder)
		if e == nil && Of(info).UID != 0 { // another user's Relay may be at work
			next = fmt.Sprintf("run this as user %d, who has the folder, or, if Relay is to run as user %d, %s", Of(info).UID, us.UID, next)
		}
		return next
	})
}

// ExplainShared is Explain for a folder that may contain files of others, like /run.
func ExplainShared(err error, folder string) error {
	return explain(err, folder, func(us User) string {
		own := filepath.Join(folder, "relay")
		return fmt.Sprintf("use a folder of its own (mkdir -p %s && chown %d %s)", own, us.UID, own)
	})
}

func explain(err error, folder string, remedy func(User) string) error {
	readOnly := errors.Is(err, syscall.EROFS)
	if !readOnly && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if whole, e := filepath.Abs(folder); e == nil {
		folder = whole
	}
	if readOnly {
		return fmt.Errorf("%w: folder %s is on a read-only file system; mount a writable volume there, or %s", err, folder, elsewhere)
	}
	found, info := nearest(folder)
	us := Us()
	var facts []string
	if info != nil {
		facts = append(facts, fmt.Sprintf("folder %s has %s", found, Of(info)))
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		path := e.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(folder, path)
		}
		if file, e := os.Lstat(path); e == nil && path != found {
			facts = append(facts, fmt.Sprintf("%s has %s", path, Of(file)))
		}
	}
	groups := strings.Trim(fmt.Sprint(us.Groups), "[]")
	facts = append(facts, fmt.Sprintf("this process is user %d of groups %s", us.UID, groups))
	next := remedy(us)
	if found != folder {
		next = fmt.Sprintf("make it and give it to this user (mkdir -p %s && chown %d %s)", folder, us.UID, folder)
	}
	return fmt.Errorf("%w: %s; %s, in Kubernetes set fsGroup in the pod's securityContext, or %s",
		err, strings.Join(facts, ", "), next, elsewhere)
}

const elsewhere = "name a folder of this user with $STATE_DIRECTORY or in the configuration"

// nearest is the folder, or the nearest parent that can be read.
func nearest(folder string) (string, fs.FileInfo) {
	for {
		info, err := os.Stat(folder)
		if err == nil {
			return folder, info
		}
		up := filepath.Dir(folder)
		if up == folder {
			return folder, nil
		}
		folder = up
	}
}
