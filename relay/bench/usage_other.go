//go:build !linux

package bench

import (
	"errors"
	"time"
)

var errNoProc = errors.New("relay bench needs Linux: it reads /proc")

func processUsage(int) (time.Duration, int64, error) { return 0, 0, errNoProc }

func processMemory(int, string) (int64, error) { return 0, errNoProc }
