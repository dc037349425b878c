package chart

import (
	"encoding/xml"
	"errors"
	"html/template"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit/golden"
)

func count(n int64) string         { return strconv.FormatInt(n, 10) }
func millis(ms float64) string     { return strconv.FormatFloat(ms, 'f', -1, 64) + " ms" }
func percent(ratio float64) string { return strconv.FormatFloat(100*ratio, 'f', 1, 64) + " %" }

var words = Text{ID: "c1", Title: "Success & failure", Description: `Deliveries by <hour>`, Table: "Values", Step: "Hour", Empty: "Nothing ended."}

func hours(n int) (steps []Step) {
	for i := range n {
		steps = append(steps, Step{Label: strconv.Itoa(i) + ":00", Name: "29 Nov " + strconv.Itoa(i) + ":00"})
	}
	return steps
}

// samples are one chart of each kind and case.
func samples() map[string]template.HTML {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	h := hours(4)
	bars := Bars{Delivered: "Delivered", Failed: "Failed", Discarded: "Discarded", Count: count, Bars: []Bar{
		{Step: h[0], Delivered: 10, Failed: 2}, {Step: h[1], Missing: true}, {Step: h[2]}, {Step: h[3], Delivered: 3, Failed: 1, Discarded: 7},
	}}
	lines := Lines{P50: "p50", P95: "p95", Value: millis, Log: "logarithmic", Points: []Point{
		{h[0], 12, 300}, {h[1], Gap(), Gap()}, {h[2], 20, 20}, {h[3], 18.5, 1200},
	}}
	straight := lines
	straight.Scale = Linear
	return map[string]template.HTML{
		"success":         Success(words, bars),
		"success-empty":   Success(words, Bars{Bars: []Bar{{Step: h[0]}}}),
		"latency":         Latency(words, lines),
		"latency-linear":  Latency(words, straight),
		"backlog":         Backlog(words, Levels{Backlog: "Waiting", Count: count, Levels: []Level{{h[0], false, 5}, {h[1], true, 0}, {h[2], false, 12}, {h[3], false, 0}}}),
		"backlog-of-none": Backlog(Text{Title: "Backlog"}, Levels{Backlog: "Waiting", Count: count, Levels: []Level{{Step: h[0]}}}),
		"share": Share(words, Parts{Count: count, Percent: percent, Parts: []Part{
			{"Delivered", OK, 1_000_000}, {"Failed", Bad, 1}, {"Pending", Wait, 0}, {"Held", Held, 500_000}, {"Discarded", Off, 9},
		}}),
		"spark-success": Spark(SparkSuccess, "Success of billing", []float64{1, 0.5, Gap(), 0.99}, percent),
		"spark-latency": Spark(SparkLatency, "Latency", []float64{1, 20}, millis),
		"spark-backlog": Spark(SparkBacklog, "Backlog", []float64{0, 20, 3}, millis),
		"spark-empty":   Spark(SparkLatency, "Latency", nil, millis),
		"waterfall": Waterfall(words, Attempts{
			DNS: "DNS", Connect: "Connect", TLS: "TLS", FirstByte: "First byte", Rest: "Rest", Total: "Total", Value: millis,
			Later: func(ms float64) string { return millis(ms) + " later" },
			Attempts: []Attempt{
				{Name: "1", Note: "503", State: Bad, Start: at, DNS: 2, Connect: 10, TLS: 20, FirstByte: 100, Total: 140},
				{Name: "2", Note: "timeout", State: Bad, Start: at.Add(5 * time.Second), FirstByte: 0, Total: 1000},
				{Name: "3", Note: "200", State: OK, Start: at.Add(time.Minute), FirstByte: 30, Total: 30},
			},
		}),
	}
}

func TestGolden(t *testing.T) {
	for name, got := range samples() {
		golden.Check(t, "testdata/"+name+".html", strings.ReplaceAll(string(got), "><", ">\n<")+"\n")
	}
}

// check fails the test unless h is well-formed, and each element, attribute and number is one that may be there.
func check(t *testing.T, h template.HTML) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(string(h)))
	depth, ids := 0, []string{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, h)
		}
		switch e := token.(type) {
		case xml.StartElement:
			depth++
			ids = append(ids, checkElement(t, e)...)
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 0 {
				t.Fatalf("text outside of elements: %s", h)
			}
		}
	}
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Fatalf("ids are not unique: %q", ids)
	}
}

var (
	elements  = strings.Fields("figure figcaption span div svg title desc line rect path g text details summary table caption thead tbody tr th td ol ul li p")
	geometry  = strings.Fields("x y x1 y1 x2 y2 width height")
	others    = strings.Fields("class id role aria-label aria-labelledby aria-describedby aria-hidden viewBox preserveAspectRatio d scope")
	number    = regexp.MustCompile(`^-?[0-9]{1,6}(\.[0-9])?%?$`)
	path      = regexp.MustCompile(`^([MLVHh]?-?[0-9]{0,4}(\.[0-9])?|[Z ])*$`)
	className = regexp.MustCompile(`^(c-[a-z0-9]+ ?)+$`)
)

func checkElement(t *testing.T, e xml.StartElement) (ids []string) {
	t.Helper()
	if !slices.Contains(elements, e.Name.Local) {
		t.Fatalf("element %s", e.Name.Local)
	}
	picture := false
	for _, a := range e.Attr {
		name := a.Name.Local
		switch {
		case slices.Contains(geometry, name):
			if !number.MatchString(a.Value) {
				t.Fatalf("%s %s=%q", e.Name.Local, name, a.Value)
			}
			if v, _ := strconv.ParseFloat(strings.TrimSuffix(a.Value, "%"), 64); v < 0 || v > wide {
				t.Fatalf("%s %s=%q is outside of the picture", e.Name.Local, name, a.Value)
			}
		case !slices.Contains(others, name):
			t.Fatalf("attribute %s", name)
		case name == "d" && !path.MatchString(a.Value), name == "class" && !className.MatchString(a.Value):
			t.Fatalf("%s=%q", name, a.Value)
		case name == "id":
			ids = append(ids, a.Value)
		}
		picture = picture || name == "role" && a.Value == "img" || name == "aria-hidden"
	}
	if e.Name.Local == "svg" && !picture {
		t.Fatalf("a picture without role: %v", e)
	}
	return ids
}

func TestSamplesAreWellFormed(t *testing.T) {
	for name, h := range samples() {
		t.Run(name, func(t *testing.T) { check(t, h) })
	}
}

// What strangers write stays text, whatever chart it is in.
func TestHostileWords(t *testing.T) {
	evil := "\"'><script>alert(1)</script>&\x00\x1b\u202e\xff\ufffe" + `" onload="x`
	f := func(float64) string { return evil }
	n := func(int64) string { return evil }
	text := Text{evil, evil, evil, evil, evil, evil, evil}
	step := Step{evil, evil}
	state := State(evil)
	for name, h := range map[string]template.HTML{
		"success":   Success(text, Bars{[]Bar{{Step: step, Delivered: 1}, {Step: step, Missing: true}}, evil, evil, evil, n}),
		"latency":   Latency(text, Lines{Points: []Point{{step, 1, 1000}}, P50: evil, P95: evil, Value: f, Log: evil}),
		"backlog":   Backlog(text, Levels{[]Level{{step, false, 1}}, evil, n}),
		"share":     Share(text, Parts{[]Part{{evil, state, 1}}, n, f}),
		"spark":     Spark(SparkSuccess, evil, []float64{1}, f),
		"no spark":  Spark(SparkSuccess, evil, nil, f),
		"empty":     Success(text, Bars{}),
		"waterfall": Waterfall(text, Attempts{[]Attempt{{Name: evil, Note: evil, State: state, Total: 1}, {Name: evil, Start: time.Unix(1<<40, 0)}}, evil, evil, evil, evil, evil, evil, f, f}),
	} {
		check(t, h)
		if strings.Contains(string(h), "<script") || strings.ContainsAny(string(h), "\u202e\x00\x1b") {
			t.Errorf("%s: %s", name, h)
		}
		if !strings.Contains(string(h), "&lt;script&gt;") {
			t.Errorf("%s lost the words: %s", name, h)
		}
	}
}

// A chart whose values are all of one step draws them as wide as the step, and says when there will be more.
func TestOneStep(t *testing.T) {
	text, h := words, hours(10)
	text.Few = "More follows."
	lines, levels, bars := Lines{Value: millis}, Levels{Count: count}, Bars{Count: count}
	for i, step := range h {
		point, level, bar := Point{step, Gap(), Gap()}, Level{step, i != 9, 5}, Bar{Step: step}
		if i == 9 {
			point.P50, point.P95, bar.Delivered = 1, 2, 3
		}
		lines.Points, levels.Levels, bars.Bars = append(lines.Points, point), append(levels.Levels, level), append(bars.Bars, bar)
	}
	for name, got := range map[string]template.HTML{"latency": Latency(text, lines), "backlog": Backlog(text, levels)} {
		check(t, got)
		if !strings.Contains(string(got), `h80"/>`) || strings.Contains(string(got), "c-dot") {
			t.Errorf("%s draws no line as wide as the step: %s", name, got)
		}
	}
	if got := Backlog(text, levels); !strings.Contains(string(got), `h80V200H910Z`) {
		t.Errorf("there is nothing below the line: %s", got)
	}
	few := func() []template.HTML {
		return []template.HTML{Latency(text, lines), Backlog(text, levels), Success(text, bars)}
	}
	for i, got := range few() {
		if !strings.Contains(string(got), `<p class="c-empty">More follows.</p>`) {
			t.Errorf("chart %d does not say when there will be more: %s", i, got)
		}
	}
	lines.Points[2].P95, levels.Levels[2].Missing, bars.Bars[2].Failed = 4, false, 1
	for i, got := range few() {
		if strings.Contains(string(got), "More follows.") {
			t.Errorf("chart %d with two steps says that there will be more", i)
		}
	}
}

// Without data a step is a gap in a line, not a zero, and a value alone between gaps is a short line.
func TestGaps(t *testing.T) {
	h := Latency(words, Lines{Value: millis, Scale: Linear, Points: []Point{{P50: 1}, {P50: 1}, {P50: math.NaN()}, {P50: 1}, {P50: math.Inf(1)}, {P50: -1}}})
	if want := `class="c-line" d="M83.3 0L250 0M516.7 0h133.3"/>`; !strings.Contains(string(h), want) {
		t.Errorf("%s is missing in %s", want, h)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		name string
		got  scale
		want []float64
	}{
		{"counts of 0", linear(0, whole), []float64{0, 1}},
		{"counts to 3", linear(3, whole), []float64{0, 1, 2, 3}},
		{"counts to 4", linear(4, whole), []float64{0, 1, 2, 3, 4}},
		{"counts to 5", linear(5, whole), []float64{0, 2, 4, 6}},
		{"counts to 70", linear(70, whole), []float64{0, 20, 40, 60, 80}},
		{"0.02 ms", linear(0.02, ofTime), []float64{0, 0.005, 0.01, 0.015, 0.02}},
		{"1.9 s", linear(1900, ofTime), []float64{0, 500, 1000, 1500, 2000}},
		{"50 s", linear(50_000, ofTime), []float64{0, 15_000, 30_000, 45_000, 60_000}},
		{"20 min", linear(1_200_000, ofTime), []float64{0, 300_000, 600_000, 900_000, 1_200_000}},
		{"3 d", linear(3*864e5, ofTime), []float64{0, 864e5, 2 * 864e5, 3 * 864e5}},
		{"7 and 4000", logarithmic([]float64{7, 4000}), []float64{1, 10, 100, 1000, 10_000}},
		{"10 and 1000", logarithmic([]float64{10, 1000}), []float64{10, 100, 1000}},
		{"100 alone", logarithmic([]float64{100}), []float64{100, 1000}},
		{"0 and 10", logarithmic([]float64{0, 10}), []float64{0.001, 0.01, 0.1, 1, 10}},
		{"many decades", logarithmic([]float64{1, 1e15}), []float64{1, 1e3, 1e6, 1e9, 1e12, 1e15}},
	} {
		if !slices.EqualFunc(c.got.ticks, c.want, func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b }) {
			t.Errorf("%s: ticks %v, want %v", c.name, c.got.ticks, c.want)
		}
	}
	if s := logarithmic([]float64{0, 10}); !s.least || s.at(0) != 0 || s.at(10) != 1 {
		t.Errorf("0 on a logarithmic axis: %+v", s)
	}
}

// The parts of a bar fill it, and one failed of a million can be seen.
func TestSharesFillTheBar(t *testing.T) {
	widths := shares([]Part{{Count: 1_000_000}, {Count: 1}, {Count: 0}, {Count: -5}}, 1_000_001)
	if sum := widths[0] + widths[1]; math.Abs(sum-wide) > 1e-9 || widths[1] < sliver*0.99 || widths[2] != 0 || widths[3] != 0 {
		t.Errorf("widths %v", widths)
	}
}

// Of many steps the newest are drawn.
func TestManySteps(t *testing.T) {
	bars := Bars{Count: count}
	for i := range 3 * maxSteps {
		bars.Bars = append(bars.Bars, Bar{Step: Step{Label: "step" + strconv.Itoa(i) + "."}, Delivered: 1})
	}
	h := string(Success(words, bars))
	if strings.Contains(h, ">step999.<") || !strings.Contains(h, ">step1000.<") || !strings.Contains(h, ">step1499.<") {
		t.Errorf("%d bytes do not have the newest %d steps", len(h), maxSteps)
	}
	if n := strings.Count(h, "<text "); n > maxLabels {
		t.Errorf("%d labels of the axis", n)
	}
	check(t, template.HTML(h))
}

func FuzzCharts(f *testing.F) {
	f.Add(1.0, math.NaN(), math.Inf(1), int64(1), uint8(3))
	f.Add(-1.0, 1e300, 5e-324, int64(math.MinInt64), uint8(1))
	f.Add(0.0, 0.0, 0.0, int64(math.MaxInt64), uint8(2))
	f.Add(1e15, 1e16, 0.1, int64(-1), uint8(0))
	f.Fuzz(func(t *testing.T, a, b, c float64, n int64, steps uint8) {
		values := []float64{a, b, c}
		bars, levels := Bars{Count: count}, Levels{Count: count}
		lines, attempts := Lines{Value: millis}, Attempts{Value: millis, Later: millis}
		spark := []float64{}
		for i := range int(steps) {
			v := func(j int) float64 { return values[(i+j)%3] }
			bars.Bars = append(bars.Bars, Bar{Missing: i%3 == 1, Delivered: n, Failed: n / 3, Discarded: -n})
			levels.Levels = append(levels.Levels, Level{Missing: i%3 == 1, Count: n})
			lines.Points = append(lines.Points, Point{P50: v(0), P95: v(1)})
			attempts.Attempts = append(attempts.Attempts, Attempt{Start: time.Unix(n, 0), DNS: v(0), Connect: v(1), TLS: v(2), FirstByte: v(0), Total: v(1)})
			spark = append(spark, v(0))
		}
		for _, lines.Scale = range []Scale{Auto, Linear, Logarithmic} {
			check(t, Latency(words, lines))
		}
		for kind := range SparkBacklog + 1 {
			check(t, Spark(kind, "label", spark, millis))
		}
		check(t, Success(words, bars))
		check(t, Backlog(words, levels))
		check(t, Waterfall(words, attempts))
		check(t, Share(words, Parts{[]Part{{"a", OK, n}, {"b", Bad, n / 2}, {"c", "", -n}}, count, percent}))
	})
}

// Every class that is drawn has a rule or stands in the package comment, and every class with a rule stands there.
func TestClassesAreInTheStyleSheet(t *testing.T) {
	css, err := os.ReadFile("../assets/chart.css")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("chart.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(source), "\npackage chart")
	drawn := ""
	for _, h := range samples() {
		drawn += string(h)
	}
	class := regexp.MustCompile(`\bc-[a-z0-9]+\b`)
	for _, c := range class.FindAllString(drawn, -1) {
		if c != "c-1" && !strings.Contains(comment, c) {
			t.Errorf("class %s is not in the package comment", c)
		}
	}
	for _, c := range class.FindAllString(string(css), -1) {
		if !slices.Contains(class.FindAllString(comment, -1), c) {
			t.Errorf("class %s of chart.css is not in the package comment", c)
		}
	}
	for _, c := range class.FindAllString(comment, -1) {
		if !slices.Contains(class.FindAllString(drawn+string(css), -1), c) {
			t.Errorf("class %s of the package comment is nowhere", c)
		}
	}
	if regexp.MustCompile(`#[0-9a-f]{3}|rgb|hsl`).Match(css) {
		t.Error("chart.css has a colour of its own")
	}
}

// A table of 100 endpoints with a line of 24 hours for success, latency and backlog each.
func BenchmarkHundredRows(b *testing.B) {
	values := make([]float64, 24)
	for i := range values {
		values[i] = 1 - float64(i%7)/40
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = 0
		for range 100 {
			for kind := range SparkBacklog + 1 {
				size += len(Spark(kind, "billing", values, percent))
			}
		}
	}
	b.ReportMetric(float64(size), "bytes/page")
}

// A page of an endpoint: three charts of 168 hours.
func BenchmarkWeek(b *testing.B) {
	bars, lines, levels := Bars{Count: count}, Lines{Value: millis}, Levels{Count: count}
	for i, h := range hours(168) {
		bars.Bars = append(bars.Bars, Bar{Step: h, Delivered: int64(1000 + i), Failed: int64(i % 9)})
		lines.Points = append(lines.Points, Point{h, float64(20 + i%5), float64(100 + i)})
		levels.Levels = append(levels.Levels, Level{Step: h, Count: int64(i * i)})
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = len(Success(words, bars)) + len(Latency(words, lines)) + len(Backlog(words, levels))
	}
	b.ReportMetric(float64(size), "bytes/page")
}

// A tiny line with one value alone is a step wide, wherever the value is, and its description has the value once.
func TestSparkOfOneValue(t *testing.T) {
	for want, values := range map[string][]float64{
		`d="M0 12L1 12"`: {Gap(), 0.5, Gap()}, `d="M0 2L1 2"`: {1}, `d="M0 22L1 22"`: {0, Gap(), Gap()}, `d="M2 12L3 12"`: {Gap(), Gap(), Gap(), 0.5},
	} {
		got := string(Spark(SparkSuccess, "Success", values, percent))
		if !strings.Contains(got, want) || !strings.Contains(got, "Success") || strings.Count(got, percent(0.5)) > 1 {
			t.Errorf("%v: %s, want %s", values, got, want)
		}
	}
}
