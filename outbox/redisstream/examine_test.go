package redisstream

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relay/outbox/redisstream/redistest"
)

// wantFinding finds one with this level and a part of its text, and a remedy unless all is well.
func wantFinding(t *testing.T, f Findings, level, part string) {
	t.Helper()
	i := slices.IndexFunc(f.List, func(one Finding) bool { return one.Level == level && strings.Contains(one.What, part) })
	switch {
	case i < 0:
		t.Errorf("no finding %q with %q in:\n%s", level, part, told(f))
	case level != levelOK && f.List[i].Next == "":
		t.Errorf("%q has no remedy", f.List[i].What)
	}
}

func TestExamine(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "50mb")
	o := at(s.URL())
	o.MaxSize = 64 << 20
	examine := func() Findings {
		t.Helper()
		f, err := Examine(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := examine()
	wantFinding(t, f, levelOK, "0 % of max_size (64 MiB) are in use")
	wantFinding(t, f, levelOK, "what Redis may use")
	wantFinding(t, f, levelOK, "the clocks of Redis and of this machine differ by")
	wantFinding(t, f, levelOK, "answers in")
	if left := s.MustDo(t, "DBSIZE"); left != int64(0) {
		t.Errorf("%v keys are left", left)
	}

	meta := newKeys(o.Namespace, 0).meta
	s.MustDo(t, "HSET", meta, "format", "99", "bytes", "1")
	wantFinding(t, examine(), levelRefuse, "has format 99")
	s.MustDo(t, "HSET", meta, "format", format, "bytes", "99999999999")
	wantFinding(t, examine(), levelRefuse, "events are refused with 507")

	for range 38 { // an app that shares the server
		s.MustDo(t, "APPEND", "another", strings.Repeat("x", 1<<20))
	}
	wantFinding(t, examine(), levelWarn, "what Redis may use")

	// A user who may run the scripts' commands and not TIME or INFO.
	s.MustDo(t, "ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-time", "-info")
	o.Username, o.Password = "poor", "secret"
	f = examine()
	wantFinding(t, f, levelWarn, "may not run TIME")
	wantFinding(t, f, levelWarn, "may not run INFO")
}

func TestExamineSkew(t *testing.T) {
	for _, tt := range []struct {
		ahead       time.Duration
		level, part string
	}{
		{999 * time.Millisecond, levelOK, "differ by 999ms"},
		{time.Second, levelWarn, "1s ahead of"},
		{-time.Hour, levelWarn, "1h0m0s behind"},
	} {
		var f Findings
		f.skew(tt.ahead, "")
		wantFinding(t, f, tt.level, tt.part)
	}
}

func TestExamineUnreachable(t *testing.T) {
	s := redistest.Start(t)
	o := at(s.URL())
	s.Kill()
	if _, err := Examine(t.Context(), o); err == nil {
		t.Error("a server that is down has no error")
	}
}
