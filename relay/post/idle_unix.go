//go:build unix

package post

import "syscall"

// waiting tells whether a connection has bytes or an end to be read. It reads
// nothing and does not wait.
func waiting(c syscall.RawConn) bool {
	var err error
	var b [1]byte
	look := func(fd uintptr) bool {
		_, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}
	if failed := c.Read(look); failed != nil {
		return true
	}
	return err != syscall.EAGAIN
}
