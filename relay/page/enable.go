package page

import (
	"relay/relay/admin"
)

// disabledItself tells whether Relay itself disabled an endpoint.
func disabledItself(e *admin.Endpoint) bool {
	return e.State == "disabled" && (e.Code == "gone" || e.Code == "failing")
}

// mayEnable is the right by which the session may enable an endpoint that was disabled, by an operator or by Relay and not by
// its settings; "" if it may not.
func (c *call) mayEnable(e *admin.Endpoint) admin.Right {
	switch {
	case e.State != "disabled" || !e.Enabled:
		return ""
	case c.may(admin.Operate):
		return admin.Operate
	case e.Made != nil && disabledItself(e) && c.may(admin.Endpoints):
		return admin.Endpoints
	}
	return ""
}

// enableView is the data of the button that enables an endpoint.
type enableView struct {
	Name  string
	Held  int64  // deliveries that are sent then
	Class string // of the button
}

// enableOf is the button for an endpoint, nil where the session may not.
func (c *call) enableOf(e *admin.Endpoint, class string) *enableView {
	if c.mayEnable(e) == "" {
		return nil
	}
	v := &enableView{Name: e.Name, Class: class}
	if !e.Paused { // else they are held still
		v.Held = e.Deliveries.Held
	}
	return v
}

// ownHelp tells a session that is bound what it can do itself.
func (c *call) ownHelp(notes []stateNote) {
	for i := range notes {
		if own := notes[i].Help + ".own"; c.p.texts.has(own) {
			notes[i].Help = own
		}
	}
}
