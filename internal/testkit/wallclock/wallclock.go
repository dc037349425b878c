// Package wallclock builds programs whose wall clock a test can step while they run. Their
// monotonic clock is the machine's, as after a step by NTP or by hand.
//
// The program is built with another time.Now (go build -overlay), which adds the seconds that a
// file in memory holds to the wall part. Nothing of the product knows it.
package wallclock

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// variable names the file of a Clock to the program.
const variable = "WALLCLOCK_OFFSET"

// now is the line of time.Now after which the offset is added.
const now = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {"

const offset = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var offsetFile = mapOffset()

func mapOffset() *int64 {
	path, found := syscall.Getenv("` + variable + `")
	if !found {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("open " + path + ": " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + path + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}

func wallOffset() int64 {
	if offsetFile == nil {
		return 0 // time is just being initialised
	}
	return atomic.LoadInt64(offsetFile)
}
`

// building lets one Build after the other have the machine: the next finds in the build cache
// what they share.
var building sync.Mutex

// Build builds a package, such as "relay/relay", into dir, which is the test's own, and returns
// the program's path.
func Build(t testing.TB, dir, pkg string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), now, "	sec, nsec, mono := runtimeNow()\n	sec += wallOffset()\n	if mono == 0 {", 1)
	if changed == string(text) {
		t.Fatalf("time.Now of %s is another one than this package knows: see const now", runtime.Version())
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(source, "time.go"):   write("time.go.txt", changed),
		filepath.Join(source, "offset.go"): write("offset.go.txt", offset),
	}})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, filepath.Base(pkg))
	out, err := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", program, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// Clock is the wall clock of programs that were built by Build.
type Clock struct {
	t    testing.TB
	path string
}

// New returns a clock that is right.
func New(t testing.TB) *Clock {
	t.Helper()
	c := &Clock{t, filepath.Join(t.TempDir(), "offset")}
	c.Set(0)
	return c
}

// Env is the line of a program's environment that gives it the clock.
func (c *Clock) Env() string { return variable + "=" + c.path }

// Set steps the clock to so much ahead of the machine's, in whole seconds, at once in running
// programs too.
func (c *Clock) Set(ahead time.Duration) {
	c.t.Helper()
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE, 0o600) // the same file: it is mapped
	if err == nil {
		_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0)
		err2 := f.Close()
		if err == nil {
			err = err2
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
}
