package explain

import (
	"slices"
	"testing"

	"relay/config"
)

// An access that is gone is one line, one that changed has its settings.
func TestRemovedAccess(t *testing.T) {
	set := func(name, old, now string) SettingChange {
		return SettingChange{Change: config.Change{Name: "admin.access " + name, Old: old, New: now}}
	}
	c := &Changes{Process: []SettingChange{
		set("support token", "set", "none"), set("support may", "read payload", ""), set("support tenants", "acme", ""),
		set("ops may", "read", "read operate"),
	}}
	want := []string{"process: changed", "  access support: removed", "  admin.access ops may: read → read operate"}
	if got := c.Lines(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
