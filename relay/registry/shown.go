package registry

import (
	"encoding/json"
	"net/url"

	"relay/policy"
)

// Shown is settings without what may be a credential: the values of headers, which are ***, and user and query of the URL.
func Shown(spec json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(spec, &members) != nil {
		return json.RawMessage("{}")
	}
	var headers map[string]any
	if json.Unmarshal(members["headers"], &headers) == nil && headers != nil {
		for name := range headers {
			headers[name] = policy.Hidden
		}
		members["headers"], _ = json.Marshal(headers) // texts always can be written
	}
	var text string
	if json.Unmarshal(members["url"], &text) == nil && text != "" {
		u, err := url.Parse(text)
		if err != nil {
			u = &url.URL{Opaque: policy.Hidden}
		}
		u.User = nil
		e := policy.Endpoint{URL: u}
		members["url"], _ = json.Marshal(e.ShownURL().String())
	}
	shown, _ := json.Marshal(members)
	return shown
}
