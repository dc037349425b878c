package deliver

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
	"relay/relay/deliver/delivertest"
)

func TestStatesOfAnEndpoint(t *testing.T) {
	w := newWorld(t)
	a := w.inMemory("a", &delivertest.Endpoint{})
	off := endpointAt(t, "off", a.URL)
	off.Enabled = false
	d := New(w.o, policy.New([]*policy.Endpoint{off, a}))
	ctx := t.Context()
	for _, c := range []struct {
		name     string
		do       func() (Status, error)
		state    State
		waiting  string
		code     string
		refusal  error
		endpoint string
	}{
		{"resume what is active", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"pause", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"pause again", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"enable what is paused", func() (Status, error) { return d.Enable(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"disable what is paused", func() (Status, error) { return d.Disable(ctx, "a", "x") }, Disabled, WaitDisabled, ByOperator, nil, "a"},
		{"pause what is disabled", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Disabled, WaitDisabled, ByOperator, nil, "a"},
		{"enable what is paused, too", func() (Status, error) { return d.Enable(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"resume at last", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"pause for a while", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"resume", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"enable against the file", func() (Status, error) { return d.Enable(ctx, "off", "x") }, "", "", "", ErrInFile, ""},
		{"pause nobody", func() (Status, error) { return d.Pause(ctx, "nobody", "x") }, "", "", "", ErrNoEndpoint, ""},
	} {
		s, err := c.do()
		if !errors.Is(err, c.refusal) || s.Endpoint != c.endpoint || s.State != c.state || s.Waiting != c.waiting || s.Code != c.code || (s.Reason != "") != (s.Code != "") || s.Since.IsZero() != (s.Code == "") {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
	all := d.Status()
	if len(all) != 2 || all[0].Endpoint != "a" || all[1].Endpoint != "off" || all[1].State != Disabled || all[1].Reason == "" {
		t.Errorf("status %+v", all)
	}
}

// While an endpoint was paused no attempt could go well: that time is not held against it.
func TestPauseIsNoFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 500}))
		e.Disable.AfterFailing = 48 * time.Hour
		e.Retry.Schedule = slices.Repeat([]time.Duration{30 * time.Minute}, 400)
		w.start(e)
		w.accept(1, "billing")
		w.await(4)
		if _, err := w.d.Pause(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Hour)
		if _, err := w.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(47 * time.Hour)
		if s, _ := w.d.StatusOf("billing"); s.State != Active {
			t.Fatalf("failing for less than 48 h beside the pause: %+v", s)
		}
		time.Sleep(2 * time.Hour)
		if s, _ := w.d.StatusOf("billing"); s.State != Disabled || s.Code != ByFailing {
			t.Errorf("failing for 48 h after the pause: %+v", s)
		}
	})
}
