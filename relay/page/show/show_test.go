package show

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit/golden"
)

// One file for each language has everything that depends on the language.
func TestLanguages(t *testing.T) {
	now := time.Date(2026, 11, 29, 14, 0, 0, 0, time.UTC)
	passed := []time.Duration{-90 * time.Minute, -time.Second, 0, 9 * time.Second, 10 * time.Second, 59 * time.Second, time.Minute, 59*time.Minute + 59*time.Second, time.Hour, 23*time.Hour + 59*time.Minute, 24 * time.Hour, 38 * time.Hour, 39 * time.Hour, 400 * 24 * time.Hour}
	left := []time.Duration{-time.Second, 0, time.Millisecond, 4600 * time.Millisecond, 59 * time.Second, 59*time.Second + time.Millisecond, 89 * time.Second, 91 * time.Second, 59*time.Minute + 31*time.Second, 23*time.Hour + 29*time.Minute, 24 * time.Hour, 48 * time.Hour}
	durations := []float64{-1, math.NaN(), 0, 0.04, 0.1, 3.2, 3, 9.96, 320, 999.4, 999.6, 1000, 1449, 12_345, 59_949, 59_951, 125_000, 120_000, 3_599_499, 3_599_600, 11_520_000, 86_399_000, 187_200_000, 8.64e12, math.Inf(1)}
	counts := []int64{0, 1, 999, 1000, 1999, 9999, 10_000, 12_345, 123_456, 999_999, 1_000_000, 234_567_890, 5e12, math.MaxInt64, -1, -123, -1234, math.MinInt64}
	for _, l := range Langs() {
		b := &strings.Builder{}
		for _, d := range passed {
			fmt.Fprintf(b, "Ago %s: %s\n", d, l.Ago(now.Add(-d), now))
		}
		for _, d := range left {
			fmt.Fprintf(b, "In %s: %s\n", d, l.In(now.Add(d), now))
		}
		for _, ms := range durations {
			fmt.Fprintf(b, "Duration %v: %s\n", ms, l.Duration(ms))
		}
		for _, n := range counts {
			fmt.Fprintf(b, "Count %d: %s, short %s, %s\n", n, l.Count(n), l.Short(n), l.Plural(n, "%d delivery|%d deliveries"))
		}
		fmt.Fprintf(b, "Date: %s, Moment: %s\n", l.Date(now), l.Moment(now))
		fmt.Fprintf(b, "zero times: %s %s %s %s\n", l.Ago(time.Time{}, now), l.In(time.Time{}, now), l.Date(time.Time{}), l.Moment(time.Time{}))
		golden.Check(t, "testdata/"+string(l)+".txt", b.String())
	}
	if got := Hans.Plural(2, "%d 次投递"); got != "2 次投递" {
		t.Errorf("a single form: %q", got)
	}
	if got := Lang("fr").Ago(now.Add(-time.Hour), now); got != "1 h ago" {
		t.Errorf("an unknown language: %q", got)
	}
}

// Yesterday is that of the reader, not of UTC.
func TestDaysAreThoseOfTheReader(t *testing.T) {
	taipei := time.FixedZone("CST", 8*3600)
	now := time.Date(2026, 11, 30, 1, 0, 0, 0, taipei)
	for _, c := range []struct {
		t    time.Time
		want string
	}{
		{time.Date(2026, 11, 29, 0, 30, 0, 0, taipei), "yesterday"}, // the 28th in UTC
		{time.Date(2026, 11, 28, 23, 30, 0, 0, taipei), "28 Nov 2026"},
		{time.Date(2026, 11, 28, 16, 30, 0, 0, time.UTC), "yesterday"},
		{time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC), "28 Nov 2026"},
	} {
		if got := En.Ago(c.t, now); got != c.want {
			t.Errorf("Ago(%s) = %q, want %q", c.t, got, c.want)
		}
	}
	if got := En.In(time.Date(2026, 12, 1, 23, 0, 0, 0, taipei), now); got != "tomorrow" {
		t.Errorf("In = %q", got)
	}
}

func TestPercent(t *testing.T) {
	for ratio, want := range map[float64]string{
		0: "0 %", 1: "100 %", 0.9995: "99.95 %", 0.9999: "99.99 %", 0.99991: "> 99.99 %", 0.999999: "> 99.99 %",
		0.0001: "0.01 %", 0.00009: "< 0.01 %", 1e-300: "< 0.01 %", 0.5: "50 %", 0.333333: "33.3 %", 0.98999: "99 %",
		0.00125: "0.13 %", 0.01: "1 %", -0.1: "–", 1.1: "–", math.NaN(): "–", math.Inf(1): "–",
	} {
		if got := En.Percent(ratio); got != want {
			t.Errorf("Percent(%v) = %q, want %q", ratio, got, want)
		}
	}
	for i := 1; i < 100_000; i++ {
		if got := En.Percent(float64(i) / 100_000); got == "0 %" || got == "100 %" {
			t.Fatalf("Percent(%v) = %q", float64(i)/100_000, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "–", 0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10_188: "9.9 KiB", 10_189: "10 KiB", 64 << 10: "64 KiB",
		1023*1024 + 511: "1023 KiB", 1<<20 - 1: "1 MiB", 3 << 30: "3 GiB", math.MaxInt64: "8 EiB",
	} {
		if got := En.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

// A table of 100 deliveries: two times, a duration, a count, a percentage and a text each.
func BenchmarkHundredRows(b *testing.B) {
	now := time.Date(2026, 11, 29, 14, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = 0
		for i := range 100 {
			t := time.Duration(i) * time.Minute
			size += len(En.Ago(now.Add(-t), now)) + len(En.In(now.Add(t), now)) + len(En.Duration(float64(i*i))) +
				len(En.Plural(int64(i*i), "%d delivery|%d deliveries")) + len(En.Percent(float64(i)/100)) + len(Text("order.created <v2>"))
		}
	}
	b.ReportMetric(float64(size), "bytes/page")
}

func BenchmarkBody(b *testing.B) {
	raw := []byte(`[` + strings.Repeat(`{"id":"ord_01HX","total":12.50,"lines":[1,2,3],"paid":true},`, 1000) + `null]`)
	b.ReportAllocs()
	b.SetBytes(int64(min(len(raw), MaxBody)))
	for b.Loop() {
		Body(raw)
	}
}
