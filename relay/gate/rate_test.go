package gate

import (
	"strconv"
	"testing"
	"time"
)

func TestRateHeaders(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	in := func(seconds int64) string { return strconv.FormatInt(now.Unix()+seconds, 10) }
	old := func(remaining, reset string) RateHeaders { return RateHeaders{Remaining: remaining, Reset: reset} }
	field := func(s string) RateHeaders { return RateHeaders{RateLimit: s} }
	for _, tt := range []struct {
		h    RateHeaders
		want Rate
	}{
		{RateHeaders{}, Rate{}},
		{field(`"default";r=50;t=30`), Rate{50, 30 * time.Second}},
		{field(`"default"; r=0 ; t=30`), Rate{0, 30 * time.Second}},
		{field(`"burst";r=5;t=1, "day";r=100;t=3600`), Rate{100, time.Hour}},
		{field(`"day";r=100;t=3600,"burst";r=0;t=1`), Rate{0, time.Second}},
		{field(`"day";R=100;T=3600;pk=:cHsdsRa894==:`), Rate{100, time.Hour}},
		{field(`limit=100, remaining=50, reset=30`), Rate{50, 30 * time.Second}},
		{field(`"default";r=50`), Rate{}},
		{field(`"default";t=50`), Rate{}},
		{field(`"default";r=-1;t=5`), Rate{}},
		{field(`;;,=,r=;t=;`), Rate{}},
		{field(`"default";r=1;t=0`), Rate{}},
		{RateHeaders{RateLimit: "garbage", Remaining: "3", Reset: "4"}, Rate{3, 4 * time.Second}},

		{old("10", "60"), Rate{10, time.Minute}},
		{old(" 10 ", " 1.5 "), Rate{10, 1500 * time.Millisecond}},
		{old("10", in(60)), Rate{10, time.Minute}},
		{old("10", in(60)+"000"), Rate{10, time.Minute}},
		{old("10", in(-60)), Rate{}},
		{old("10", in(-60)+"000"), Rate{}},
		{old("10", "0"), Rate{}},
		{old("10", "-1"), Rate{}},
		{old("10", "NaN"), Rate{}},
		{old("10", "Inf"), Rate{}},
		{old("10", "1e999"), Rate{}},
		{old("10", "1e30"), Rate{10, longestWait}},
		{old("10", in(60)+"000000"), Rate{10, time.Minute}},
		{old("10", in(60)+"500000"), Rate{10, 60*time.Second + 500*time.Millisecond}},
		{old("10", in(60)+"000000000"), Rate{10, time.Minute}},
		{old("10", in(-60)+"000000"), Rate{}},
		{old("10", now.Add(time.Minute).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")), Rate{10, time.Minute}},
		{field(`"default";r=50;t=` + in(30) + `000000`), Rate{50, 30 * time.Second}},
		{field(`limit=100, remaining=50, reset=` + in(30) + `000`), Rate{50, 30 * time.Second}},
		{old("10", "999999999"), Rate{10, 999_999_999 * time.Second}},
		{old("10", "soon"), Rate{}},
		{old("10", ""), Rate{}},
		{old("", "10"), Rate{}},
		{old("-5", "10"), Rate{}},
		{old("1.5", "10"), Rate{}},
		{old("999999999999", "10"), Rate{unbounded, 10 * time.Second}},
		{old("99999999999999999999", "10"), Rate{}},
	} {
		if got := tt.h.Parse(now); got != tt.want {
			t.Errorf("%+v says %+v, want %+v", tt.h, got, tt.want)
		}
	}
}

func FuzzRateHeaders(f *testing.F) {
	f.Add(`"default";r=50;t=30`, "10", "60")
	f.Add("limit=100, remaining=50, reset=30", "-1", "1800000060")
	f.Add(`"a,b;c";r=1;t=1e9`, "NaN", "Inf")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, field, remaining, reset string) {
		h := RateHeaders{RateLimit: field, Remaining: remaining, Reset: reset}
		r := h.Parse(now)
		if r.Left < 0 || r.Left > unbounded || r.Reset < 0 || r.Reset > 1e18 {
			t.Fatalf("%+v says %+v", h, r)
		}
		if r.Reset == 0 && r.Left != 0 {
			t.Fatalf("%+v says %+v, which is neither something nor nothing", h, r)
		}
	})
}
