package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"relay/relay/deliver"
)

// disabledGone is the status of an endpoint that Relay disabled.
func disabledGone(name string) deliver.Status {
	return deliver.Status{Endpoint: name, State: deliver.Disabled, Code: deliver.ByGone, Reason: "the receiver answered 410", Since: time.Unix(1e9, 0).UTC()}
}

// A token with the right endpoints enables an endpoint made at run time within its bounds that Relay disabled, and the
// audit says who; all others need the right operate.
func TestEnableAgain(t *testing.T) {
	for _, c := range []struct {
		name, endpoint string
		access         *Access
		asked          string // of the deliverer, "" for nothing
		code           int
	}{
		{"of its tenant", "of-acme", acme(Read, Endpoints), "enable again", 200},
		{"of another tenant", "of-beta", acme(Read, Endpoints), "", 404},
		{"of the file", "fixed", &Access{Name: "ops", May: []Right{Read, Endpoints}}, "", 403},
		{"without the right", "of-acme", acme(Read, Redeliver, Secrets), "", 403},
		{"with operate", "of-acme", acme(Read, Operate), "enable", 200},
		{"with operate, of the file", "fixed", &Access{Name: "ops", May: []Right{Operate}}, "enable", 200},
		{"with all", "of-acme", nil, "enable", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			d := &gates{status: []deliver.Status{disabledGone("of-acme"), disabledGone("of-beta"), disabledGone("fixed")}}
			h.o.Deliverer = d
			w := h.as(c.access, "POST", "/v1/endpoints/"+c.endpoint+"/enable", "")
			if w.Code != c.code {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			want := ""
			if c.asked != "" {
				want = c.asked + " " + c.endpoint + " by an operator"
			}
			if got := strings.Join(d.asked, ", "); got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
			audit := h.as(nil, "GET", "/v1/audit?verb=enable", "").Body.String()
			if told := strings.Contains(audit, `"what":"endpoint `+c.endpoint); told != (c.asked != "") || told && c.access != nil && !strings.Contains(audit, `"who":"token `+c.access.Name) {
				t.Errorf("the audit: %s", audit)
			}
		})
	}
}

// What an operator disabled, or the settings, is refused with what to do.
func TestEnableAgainRefused(t *testing.T) {
	for err, want := range map[error]string{
		deliver.ErrByOperator: "403 an operator paused or disabled the endpoint",
		deliver.ErrInFile:     "409 the settings of the endpoint have enabled = false",
	} {
		h := newHouse(t)
		h.o.Deliverer = &gates{status: []deliver.Status{disabledGone("of-acme")}, err: err}
		w := h.as(acme(Endpoints), "POST", "/v1/endpoints/of-acme/enable", "")
		var p struct{ Detail string }
		if json.Unmarshal(w.Body.Bytes(), &p) != nil || !strings.HasPrefix(fmt.Sprint(w.Code, " ", p.Detail), want) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// moved is a deliverer of which another URL makes the decision about the old one void.
type moved struct {
	gates
	old, now deliver.Status
	url      func() string
}

func (m *moved) StatusOf(name string) (deliver.Status, bool) {
	if strings.HasSuffix(m.url(), "/gone") {
		return m.old, true
	}
	return m.now, true
}

// A change of the URL enables an endpoint that Relay disabled: the answer and the audit say so, and the decision is ended for good.
func TestNewURLEnables(t *testing.T) {
	for name, c := range map[string]struct {
		old, now deliver.Status
		patch    string
		asked    int
		told     bool
	}{
		"another URL":                   {disabledGone("of-acme"), deliver.Status{Endpoint: "of-acme", State: deliver.Active}, `{"url":"https://a.example.com/ok"}`, 1, true},
		"another URL, and off":          {disabledGone("of-acme"), deliver.Status{Endpoint: "of-acme", State: deliver.Disabled}, `{"url":"https://a.example.com/ok"}`, 1, false},
		"all else":                      {disabledGone("of-acme"), deliver.Status{}, `{"description":"x"}`, 0, false},
		"another URL of an active one":  {deliver.Status{Endpoint: "of-acme", State: deliver.Active}, deliver.Status{Endpoint: "of-acme", State: deliver.Active}, `{"url":"https://a.example.com/ok"}`, 0, false},
		"another URL, by an operator's": {deliver.Status{Endpoint: "of-acme", State: deliver.Disabled, Code: deliver.ByOperator}, deliver.Status{Endpoint: "of-acme", State: deliver.Disabled, Code: deliver.ByOperator}, `{"url":"https://a.example.com/ok"}`, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.ok("PATCH", "/v1/endpoints/of-acme", `{"url":"https://a.example.com/gone"}`)
			m := &moved{gates: gates{status: []deliver.Status{c.now}}, old: c.old, now: c.now, url: func() string { return h.o.Policy().Endpoint("of-acme").URL.String() }}
			if c.now.State == deliver.Disabled {
				m.err = deliver.ErrInFile
			}
			h.o.Deliverer = m
			w := h.as(acme(Read, Endpoints), "PATCH", "/v1/endpoints/of-acme", c.patch)
			if w.Code != http.StatusOK || strings.Contains(w.Body.String(), `"ended":["disabled"]`) != c.told {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if len(m.asked) != c.asked {
				t.Errorf("asked %q", m.asked)
			}
			audit := h.as(nil, "GET", "/v1/audit?verb=enable", "").Body.String()
			if told := strings.Contains(audit, `"who":"token acme"`); told != c.told {
				t.Errorf("the audit: %s", audit)
			}
		})
	}
}
