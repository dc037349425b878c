package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit"
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

// measurements are the rows of the blocks of docs/performance.md, by outbox and workload; each row by its columns.
func measurements(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, block := range measured.FindAllStringSubmatch(pages(t)["docs/performance.md"], -1) {
		lines := strings.Split(block[3], "\n")
		columns := regexp.MustCompile(`  +`).Split(lines[4], -1)
		for _, line := range lines[5:] {
			cells := regexp.MustCompile(`  +`).Split(strings.TrimSpace(line), -1)
			if len(cells) != len(columns) {
				break
			}
			row := map[string]string{}
			for i, c := range columns {
				row[c] = cells[i]
			}
			name := row["OUTBOX"] + " " + row["WORKLOAD"]
			if all[name] == nil { // the first of a kind is without flags
				all[name] = row
			}
		}
	}
	return all
}

// Tables and sentences repeat what relay bench printed, and nothing else.
func TestFiguresRepeatWhatWasMeasured(t *testing.T) {
	rows := measurements(t)
	cell := func(row, column string) string {
		t.Helper()
		if rows[row][column] == "" {
			t.Fatalf("no block has %s of %s: the test no longer sees it", column, row)
		}
		return rows[row][column]
	}
	number := func(row, column string) float64 {
		t.Helper()
		v, err := strconv.ParseFloat(cell(row, column), 64)
		testkit.Must(t, err)
		return v
	}
	const memory = "RSS MIB REST / MOST"
	rest := func(row string) string { before, _, _ := strings.Cut(cell(row, memory), " / "); return before }
	most := func(row string) string { _, after, _ := strings.Cut(cell(row, memory), " / "); return after }
	seconds := func(micros float64) string { return fmt.Sprintf("%.2f", micros/1000) } // for 1,000 deliveries
	cpu, redisCPU := number("sqlite single", "RELAY µS"), number("redis single", "REDIS µS")
	perSecond := fmt.Sprintf("%.1f", number("sqlite single", "DELIVERED/S")/1000)
	for page, claims := range map[string][]string{
		"docs/performance.md": {
			"| delivered, of the limit, sqlite | " + cell("sqlite single", "OF LIMIT") + " |", "| delivered, of the limit, Redis | " + cell("redis single", "OF LIMIT") + " |",
			"| one event to 10 endpoints, of the limit | " + cell("sqlite fan-out", "OF LIMIT") + " |",
			"| CPU per 1,000 deliveries, storage included | " + seconds(cpu) + " s; Redis " + seconds(number("redis single", "RELAY µS")+redisCPU) + " s, of it Redis " + seconds(redisCPU) + " |",
			"| end to end at 200/s, p50 / p99 in ms | " + cell("sqlite rate", "P50 / P99 MS") + " |",
		},
		"README.md": {
			"| throughput to delivered | " + strings.ReplaceAll(perSecond, ".", ",") + "00/s, " + cell("sqlite single", "OF LIMIT") + " × limit |",
			"| CPU per 1,000 deliveries, storage included | " + seconds(cpu) + " s |", "| end to end at 200/s, p50 / p99 | " + cell("sqlite rate", "P50 / P99 MS") + " ms |",
		},
		"docs/deploy.md": {
			most("sqlite single") + " to " + most("sqlite batch") + " MiB under load", rest("sqlite backlog") + " MiB with a million deliveries pending (" + rest("redis backlog") + " MiB with Redis)",
			rest("sqlite sparse") + " MiB with 10,000 endpoints at rest (" + rest("redis sparse") + " MiB with Redis)",
			fmt.Sprintf("about %.0f µs for each delivery of 1 KiB, %.0f µs with Redis", cpu, number("redis single", "RELAY µS")),
		},
	} {
		for _, claim := range claims {
			if !strings.Contains(pages(t)[page], claim) {
				t.Errorf("%s does not say %q, which docs/performance.md has measured", page, claim)
			}
		}
	}
}
