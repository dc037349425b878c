package listen

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// passed is a socket as a service manager passes it, with the address that it listens on.
func passed(t *testing.T, network, at string) (*os.File, net.Addr) {
	t.Helper()
	l, err := net.Listen(network, at)
	testkit.Must(t, err)
	t.Cleanup(func() { l.Close() })
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	testkit.Must(t, err)
	return f, l.Addr()
}

// answers tells whether a client reaches the listener at an address.
func answers(t *testing.T, l net.Listener, network, at string) {
	t.Helper()
	client, err := net.Dial(network, at)
	testkit.Must(t, err)
	defer client.Close()
	server, err := l.Accept()
	testkit.Must(t, err)
	testkit.Must(t, server.Close())
}

func TestGivenIsTakenByAddress(t *testing.T) {
	dir := testkit.Dir(t)
	path := filepath.Join(dir, "relay.sock")
	unix, _ := passed(t, "unix", path)
	tcp, loopback := passed(t, "tcp", "127.0.0.1:0")
	all, anywhere := passed(t, "tcp", ":0")
	g, err := Inherit([]*os.File{unix, tcp, all})
	testkit.Must(t, err)
	defer g.Close()
	if g.Unix(path+"2") != nil || g.TCP("127.0.0.1:1") != nil {
		t.Error("a listener got the socket of another address")
	}
	link := filepath.Join(dir, "link")
	testkit.Must(t, os.Symlink(dir, link))
	l := g.Unix(filepath.Join(link, "relay.sock")) // like /var/run and /run
	if l == nil {
		t.Fatal("the socket was not taken")
	}
	answers(t, l, "unix", path)
	if g.Unix(path) != nil {
		t.Error("the socket was taken twice")
	}
	for _, addr := range []net.Addr{loopback, anywhere} {
		host := strings.Replace(addr.String(), "[::]", "", 1)
		tcp := g.TCP(host)
		if tcp == nil {
			t.Fatalf("%s was not taken", host)
		}
		_, port, _ := net.SplitHostPort(addr.String())
		answers(t, tcp, "tcp", "127.0.0.1:"+port)
		testkit.Must(t, tcp.Close())
	}
	testkit.Must(t, g.Left())

	// The file is the service manager's.
	check := func() error {
		_, err := l.(*givenSocket).Check(t.Context())
		return err
	}
	testkit.Must(t, check())
	testkit.Must(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket's file was removed: %v", err)
	}
	testkit.Must(t, os.Remove(path))
	if err := check(); err == nil || !strings.Contains(err.Error(), "restart the socket unit") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestGivenIsLeft(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	unix, _ := passed(t, "unix", path)
	g, err := Inherit([]*os.File{unix})
	testkit.Must(t, err)
	if err := g.Left(); err == nil || !strings.Contains(err.Error(), `write ingest { unix "`+path+`" {} }, or take it out`) {
		t.Errorf("a socket that nobody takes: %v", err)
	}
	testkit.Must(t, g.Close())
	var none *Given
	if none.Unix(path) != nil || none.TCP(":1") != nil || none.Left() != nil || none.Close() != nil {
		t.Error("no Given has sockets")
	}
}

// With Accept=yes systemd passes connections.
func TestInheritRefusesConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	testkit.Must(t, err)
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	testkit.Must(t, err)
	if _, err := Inherit([]*os.File{f}); err == nil || !strings.Contains(err.Error(), "Accept=no") {
		t.Errorf("a connection was taken for a listener: %v", err)
	}
}
