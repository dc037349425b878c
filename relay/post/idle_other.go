//go:build !unix

package post

import "net"

// peek cannot look on this system. An attempt notices that its connection has ended.
type peek struct{}

func newPeek(net.Conn) *peek { return nil }

func (*peek) waiting() bool { return false }
