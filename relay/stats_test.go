package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relay/relay/admin"
)

// A step has its backlog in its row, and a row of its own where nothing ended in it.
func TestBacklogsOfSteps(t *testing.T) {
	at := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	hour := func(n int) time.Time { return at.Add(time.Duration(n) * time.Hour) }
	s := &admin.Statistics{
		Rows:     []admin.StatRow{{Start: hour(0), Ended: 7}, {Start: hour(2), Ended: 8}},
		Backlogs: []admin.BacklogStep{{Start: hour(0), Most: 0}, {Start: hour(1), Most: 40}, {Start: hour(2), Most: 3}, {Start: hour(3), Most: 0}},
	}
	var got []string
	for _, r := range withBacklogs(s) {
		cells := statCells(&r)
		got = append(got, fmt.Sprint(r.Start.Sub(at).Hours(), " ", cells[2], " ", cells[13]))
	}
	if want := []string{"0 7 0", "1 0 40", "2 8 3"}; !slices.Equal(got, want) {
		t.Errorf("hours, ended and backlog are %q, want %q", got, want)
	}
	if s.Rows[0].Backlog != nil {
		t.Error("it changes the answer")
	}
}
