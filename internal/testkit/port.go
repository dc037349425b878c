package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Port returns a port p that is free on loopback, and p+10000 with it: the place of the bus of a
// Redis Cluster. Both lie below the range from which the system takes ports for outgoing connections
// and for listeners that ask for any port, so that nobody takes it before the one it is for, or while
// that one is down for a moment. A lock keeps tests in other processes off it until the test ends.
func Port(t testing.TB) int {
	t.Helper()
	locks := filepath.Join(os.TempDir(), fmt.Sprintf("relay-ports-%d", os.Getuid()))
	if err := os.MkdirAll(locks, 0o700); err != nil {
		t.Fatalf("make folder: %v", err)
	}
	for range 1000 {
		port := 10000 + rand.IntN(10000)
		lock, err := os.OpenFile(filepath.Join(locks, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatalf("open port lock: %v", err)
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && isThere(lock) && isFree(port) && isFree(port+10000) {
			t.Cleanup(func() { _, _ = os.Remove(lock.Name()), lock.Close() })
			return port
		}
		_ = lock.Close()
	}
	t.Fatal("find port: none of 1,000 tried between 10000 and 20000 is free")
	return 0
}

// isThere tells whether an open file still has its name: who held its lock before may have removed it.
func isThere(f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.Name())
	return err == nil && os.SameFile(open, named)
}

// Loopback is an address of this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(port int) bool {
	l, err := net.Listen("tcp", Loopback(port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
