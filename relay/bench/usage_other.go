//go:build !linux

package bench

import (
	"errors"
	"time"
)

func processUsage(int) (time.Duration, int64, error) {
	return 0, 0, errors.New("relay bench needs Linux: it reads /proc")
}
