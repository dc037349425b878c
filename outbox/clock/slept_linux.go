package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept is how long the machine was suspended since it started, which the monotonic clock
// does not count: see clock_gettime(2).
func slept() time.Duration {
	var all, awake unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil {
		return 0
	}
	return time.Duration(all.Nano() - awake.Nano())
}
