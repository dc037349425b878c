package wallclock_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"relay/internal/testkit/wallclock"
)

// A program sees the step in its wall clock, and none in what passed.
func TestStep(t *testing.T) {
	clock := wallclock.New(t)
	clock.Set(time.Hour)
	cmd := exec.Command(wallclock.Build(t, t.TempDir(), "relay/internal/testkit/wallclock/testdata/show"))
	cmd.Env = append(cmd.Environ(), clock.Env())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, ahead := range []time.Duration{time.Hour, -24 * time.Hour, 0} {
		clock.Set(ahead)
		before := time.Now()
		if _, err := io.WriteString(in, "show\n"); err != nil || !lines.Scan() {
			t.Fatal(err, lines.Err())
		}
		var wall, passed string
		if _, err := fmt.Sscan(lines.Text(), &wall, &passed); err != nil {
			t.Fatal(err)
		}
		unix, err := strconv.ParseInt(wall, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if off := time.UnixMicro(unix).Sub(before.Add(ahead)); off < 0 || off > time.Minute {
			t.Errorf("with the clock %v ahead the program says %v", ahead, time.UnixMicro(unix))
		}
		if d, err := time.ParseDuration(passed); err != nil || d < 0 || d > time.Minute {
			t.Errorf("with the clock %v ahead %s passed (%v)", ahead, passed, err)
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
