//go:build !unix

package post

import "syscall"

// waiting cannot peek on this system. An attempt notices that its connection has ended.
func waiting(syscall.RawConn) bool { return false }
