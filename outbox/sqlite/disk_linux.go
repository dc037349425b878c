package sqlite

import (
	"errors"
	"os"
	"syscall"
)

// freeSpace is how many bytes of the directory's file system this process may
// still use.
func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// unsafeFS says why a file system does not keep what an outbox promises, "" when nothing
// speaks against it. The numbers are those of statfs(2).
func unsafeFS(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return ""
	}
	switch uint32(st.Type) {
	case 0x01021994, 0x858458f6: // tmpfs, ramfs
		return "it is in memory: a restart of the machine or the Pod loses every event"
	case 0x794c7630: // overlayfs
		return "it is a container's own layer: removing the container loses every event; mount a volume"
	case 0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x01021997, 0x00c36400, 0x5346414f: // nfs, smb, cifs, smb2, 9p, ceph, afs
		return "it is on a network file system: locks and fsync may not hold there; use a local disk"
	}
	return ""
}

// allocate gives the file real blocks up to size.
func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		if errors.Is(err, syscall.EOPNOTSUPP) {
			return fill(f, size)
		}
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
