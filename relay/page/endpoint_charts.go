package page

import (
	"html/template"
	"net/url"
	"time"

	"relay/relay/admin"
	"relay/relay/page/chart"
	"relay/relay/page/show"
)

// endpointCharts draws how an endpoint did: by hour for a day, or by day for 30 days.
func (c *call) endpointCharts(v *endpointView) error {
	step := "hour"
	if v.Month {
		step = "day"
	}
	var s admin.Statistics
	if err := c.get("/v1/stats", url.Values{"endpoint": {v.Name}, "step": {step}, "backlog": {"false"}}, &s); err != nil {
		return err
	}
	v.charts = c.drawn(&s, v.Month, func(id string) (title, about string) {
		return c.t("endpoint.chart." + id), c.t("endpoint.chart."+id+".about", c.calledOf(&v.Endpoint))
	})
	return nil
}

// charts are those of a screen.
type charts struct {
	Success, Latency template.HTML
	Levels           template.HTML // of the backlog; "" where the session may not know it
}

// drawn draws statistics by step. words are the title of a chart and what there is to see.
func (c *call) drawn(s *admin.Statistics, day bool, words func(id string) (title, about string)) charts {
	lang := show.Lang(c.lang)
	byStart, levels := map[time.Time]*admin.StatRow{}, map[time.Time]int64{}
	for i := range s.Rows {
		byStart[s.Rows[i].Start.UTC()] = &s.Rows[i]
	}
	for _, b := range s.Backlogs {
		levels[b.Start.UTC()] = b.Most
	}
	bars := chart.Bars{Delivered: c.t("state.delivered"), Failed: c.t("state.failed"), Discarded: c.t("state.discarded"), Count: lang.Count}
	lines := chart.Lines{P50: c.t("endpoint.chart.p50"), P95: c.t("endpoint.chart.p95"), Value: lang.Duration, Log: c.t("endpoint.chart.log")}
	backlog := chart.Levels{Backlog: c.t("endpoint.chart.most"), Count: lang.Count}
	for _, at := range stepsOf(s) {
		name := c.stepName(at, day)
		bar, point := chart.Bar{Step: name}, chart.Point{Step: name, P50: chart.Gap(), P95: chart.Gap()}
		if r := byStart[at]; r != nil {
			bar.Delivered, bar.Failed, bar.Discarded = r.Delivered, r.Failed, r.Discarded
			if r.TookMS != nil {
				point.P50, point.P95 = r.TookMS.P50, r.TookMS.P95
			}
		}
		most, known := levels[at]
		bars.Bars, lines.Points = append(bars.Bars, bar), append(lines.Points, point)
		backlog.Levels = append(backlog.Levels, chart.Level{Step: name, Missing: !known, Count: most})
	}
	text := func(id string) chart.Text {
		step := "hour"
		if day {
			step = "day"
		}
		title, about := words(id)
		return chart.Text{
			ID: "chart-" + id, Title: title, Description: about, Table: c.t("endpoint.chart.values"), Step: c.t("endpoint.chart." + step),
			Empty: c.t("endpoint.chart.empty"), Few: c.t("endpoint.chart.few." + step),
		}
	}
	out := charts{Success: chart.Success(text("success"), bars), Latency: chart.Latency(text("latency"), lines)}
	if len(levels) > 0 {
		words := text("backlog")
		words.Few = ""
		out.Levels = chart.Backlog(words, backlog)
	}
	return out
}

// stepsOf are the beginnings of the hours or days of statistics, in UTC.
func stepsOf(s *admin.Statistics) (all []time.Time) {
	next := func(t time.Time) time.Time { return t.Add(time.Hour) }
	at := s.Since.UTC()
	if s.Step == "day" {
		next = func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
		at = time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	}
	for ; at.Before(s.Until) && len(all) < 1000; at = next(at) {
		all = append(all, at)
	}
	return all
}

// stepName names an hour or a day, in UTC.
func (c *call) stepName(at time.Time, day bool) chart.Step {
	lang := show.Lang(c.lang)
	if !day {
		hour := at.Format("15:04")
		return chart.Step{Label: hour, Name: lang.Date(at) + " " + hour + " UTC"}
	}
	layout := "2 Jan"
	if lang != show.En {
		layout = "1/2"
	}
	return chart.Step{Label: at.Format(layout), Name: lang.Date(at)}
}
