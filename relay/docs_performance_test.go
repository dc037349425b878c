package main

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"relay/relay/bench"
)

// docs/performance.md is what relay bench prints. `make performance` writes it, on a machine that
// does nothing else; this test tells when a block is not what the command would print today.
var measure = flag.String("measure", "", "run the commands of docs/performance.md with this binary, and write what they print")

var measured = regexp.MustCompile(`(?s)(<!-- measured: (relay bench[^\n]*) -->\n)(.*?)(<!-- end -->)`)

// measureTimeout is for the slowest of the commands: a million deliveries by way of Redis.
const measureTimeout = 15 * time.Minute

func TestPerformanceIsMeasured(t *testing.T) {
	const path = "../docs/performance.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	fresh := measured.ReplaceAllStringFunc(string(text), func(part string) string {
		found++
		m := measured.FindStringSubmatch(part)
		if *measure != "" {
			return m[1] + "```\n$ " + m[2] + "\n" + runBench(t, *measure, m[2]) + "```\n" + m[4]
		}
		checkMeasured(t, m[2], m[3])
		return part
	})
	if found < 5 {
		t.Errorf("found only %d blocks that relay bench has printed: the test no longer sees them", found)
	}
	if *measure != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func runBench(t *testing.T, binary, command string) string {
	t.Log(command)
	ctx, cancel := context.WithTimeout(t.Context(), measureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, strings.Fields(command)[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

// checkMeasured looks whether a block is of its command, and has the columns and the workloads of today.
func checkMeasured(t *testing.T, line, block string) {
	c := &command{env: func(string) (string, bool) { return "", false }}
	root := c.root()
	verb, args, err := root.Find(strings.Fields(line)[1:])
	if err == nil {
		err = verb.ParseFlags(args)
	}
	if err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	names, err := verb.Flags().GetStringSlice("workload")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(block, "\n")
	if len(lines) < 5 || lines[1] != "$ "+line {
		t.Errorf("%s: the block is of another command: run make performance", line)
		return
	}
	columns := regexp.MustCompile(`  +`).Split(lines[4], -1)
	if strings.Join(columns, "|") != strings.Join(bench.Header(), "|") {
		t.Errorf("%s: the columns are %q, today %q: run make performance", line, columns, bench.Header())
	}
	for i, name := range names {
		if len(lines) <= 5+i || !strings.HasPrefix(lines[5+i], name+" ") {
			t.Errorf("%s: row %d is not of the workload %s: run make performance", line, i+1, name)
		}
	}
}
