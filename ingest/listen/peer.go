package listen

import (
	"context"
	"net"
)

// peerKey is the key of a connection in the context of its requests.
type peerKey struct{}

// withPeer notes the connection of requests, for Peer.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, c)
}

// Peer returns the user id of the process that sent a request of a [Server] over a Unix socket, and false for
// all other requests. It is known on Linux only.
func Peer(ctx context.Context) (uid uint32, ok bool) {
	c, _ := ctx.Value(peerKey{}).(*net.UnixConn)
	if c == nil {
		return 0, false
	}
	return peerUID(c)
}
