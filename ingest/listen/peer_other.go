//go:build !linux

package listen

import "net"

// peerUID is not known here.
func peerUID(*net.UnixConn) (uid uint32, ok bool) { return 0, false }
