package main

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"relay/internal/testkit"
	"relay/relay/admin"
)

func jobWith(t *testing.T, text string) *admin.Job {
	t.Helper()
	var job admin.Job
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	return &job
}

func awaitLogged(t *testing.T, log *atomic.Value, part string) {
	t.Helper()
	testkit.Until(t, part, func() bool { return strings.Contains(log.Load().(string), part) })
}

func topOf(t *testing.T) *topView {
	t.Helper()
	v := &topView{sort: "backlog"}
	for _, text := range []string{
		`{"name":"a","state":"active","deliveries":{"pending":1}}`,
		`{"name":"b","state":"paused","deliveries":{"held":9,"oldest_ms":61000}}`,
		`{"name":"c","state":"active","deliveries":{}}`,
	} {
		var r topRow
		if err := json.Unmarshal([]byte(text), &r.Endpoint); err != nil {
			t.Fatal(err)
		}
		v.rows = append(v.rows, r)
	}
	v.rows[0].stats = admin.StatRow{Failed: 5, TookMS: &admin.Took{P95: 20}}
	v.rows[2].stats = admin.StatRow{Failed: 1, TookMS: &admin.Took{P95: 900}}
	return v
}

// order is the names on the screen, from the top.
func order(screen string) (names string) {
	for _, line := range strings.Split(screen, "\r\n")[2:] {
		names += strings.Fields(line)[0]
	}
	return names
}

func TestKeysOfTop(t *testing.T) {
	v := topOf(t)
	for _, c := range []struct {
		key  byte
		want string
	}{{'x', "bac"}, {'e', "acb"}, {'l', "cab"}, {'n', "abc"}, {'b', "bac"}} {
		if !v.key(c.key) {
			t.Fatalf("%q ends it", c.key)
		}
		if got := order(v.screen(100, 20)); got != c.want {
			t.Errorf("%q sorts %s, want %s", c.key, got, c.want)
		}
	}
	v.rows[len(v.rows)-1].Failing = &admin.Failing{Code: "http_500"}
	last := v.rows[len(v.rows)-1].Name
	if v.key('e'); !strings.HasPrefix(order(v.screen(100, 20)), last) || !strings.Contains(v.screen(100, 20), "failing") {
		t.Errorf("%s, which fails, is not the first:\n%s", last, v.screen(100, 20))
	}
	v.key('b')
	if v.key(' '); !strings.Contains(v.screen(100, 20), "by backlog, held") {
		t.Error("space does not hold it")
	}
	if v.key(' '); !strings.Contains(v.screen(100, 20), "every 2 s") {
		t.Error("space does not let it go on")
	}
	for _, key := range []byte{'q', 3, 4} {
		if v.key(key) {
			t.Errorf("%q does not end it", key)
		}
	}
}

func TestScreenOfTopFits(t *testing.T) {
	screen := strings.TrimPrefix(topOf(t).screen(30, 4), "\x1b[H\x1b[2J")
	lines := strings.Split(screen, "\r\n")
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if len([]rune(line)) > 30 {
			t.Errorf("%q is too wide", line)
		}
	}
}
