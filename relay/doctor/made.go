package doctor

import (
	"encoding/json"
	"maps"
	"slices"

	"relay/policy"
	"relay/relay/admin"
)

// Made are the endpoints of a running Relay that were made at run time, as far as they say where it
// connects to, with the policies of the file. Of those that cannot be known it makes a finding.
func Made(c *policy.Compiler, all []admin.Endpoint) (made []*policy.Endpoint, found []Finding) {
	var unknown []string
	for i := range all {
		e := &all[i]
		if e.Made == nil || !e.Enabled || e.Made.Flaws != nil {
			continue // Judge tells of flaws
		}
		target, err := c.Compile(e.Name, connection(e.Made.Settings))
		if err != nil {
			unknown = append(unknown, e.Name)
			continue
		}
		made = append(made, target)
	}
	if unknown != nil {
		found = append(found, Finding{Level: Warns, Part: Endpoint, Endpoints: unknown,
			What: "made at run time and not looked at: the running Relay shows no key of TLS, or the files on disk are not what runs",
			Next: "relay test sends a real event to one of them"})
	}
	return made, found
}

// connection is the settings that say how to connect. The others may hold *** where a value is not shown.
func connection(settings json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(settings, &members) // Compile says that it has no url
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool {
		return !slices.Contains([]string{"url", "policy", "egress", "tls"}, name)
	})
	if members != nil {
		members["sign"] = json.RawMessage(`["none"]`)
	}
	text, _ := json.Marshal(members) // it was JSON
	return text
}
