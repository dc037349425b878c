package redisstream

import (
	"fmt"
	"os"
	"strings"
)

// process names a process so that another one on the same machine can tell
// whether it still lives. The zero value is of nobody.
type process struct {
	Machine string `json:"machine"` // this boot of this kernel, and the namespace of process ids
	PID     int    `json:"pid"`
	Start   string `json:"start"` // in clock ticks since boot: process ids are used again
}

// thisProcess is the zero value where /proc does not tell.
func thisProcess() process {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return process{}
	}
	start := startOf(os.Getpid())
	if start == "" {
		return process{}
	}
	return process{Machine: strings.TrimSpace(string(boot)) + " " + namespace, PID: os.Getpid(), Start: start}
}

// startOf is field 22 of /proc/<pid>/stat (proc_pid_stat(5)), "" when there is no
// such process.
func startOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return "" // a zombie works no more
	}
	return fields[19]
}

// dead tells whether p is certainly over. Of another machine, another boot or
// another namespace nothing is certain.
func (p process) dead() bool {
	self := thisProcess()
	return p.Machine != "" && p.Machine == self.Machine && startOf(p.PID) != p.Start
}
