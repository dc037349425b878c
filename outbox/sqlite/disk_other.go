//go:build !linux

package sqlite

import (
	"math"
	"os"
)

// freeSpace is not known here: a full disk is noticed when a write fails.
func freeSpace(string) (int64, error) { return math.MaxInt64, nil }

// unsafeFS cannot tell here.
func unsafeFS(string) string { return "" }

// allocate gives the file real blocks up to size.
func allocate(f *os.File, size int64) error { return fill(f, size) }
