package sign

import (
	"slices"
	"strings"
)

// The built-in schemes, as the `signature` blocks that a file would have for them.
// In each, a header that tells receivers which event it is has the event's id: it is
// the same on every attempt, and when the event is delivered again.

// builtins lists them in the order for messages and docs.
func builtins() []Spec {
	standard := Spec{
		// Standard Webhooks 1.0.0: v1 is HMAC-SHA256 (whsec_), v1a Ed25519 (whsk_).
		Name:      "standard",
		Encoding:  encodingBase64,
		Secret:    secretWhsec,
		Separator: " ",
		Versions:  map[string]string{hmacSHA256: "v1,", algoEd25519: "v1a,"},
		Signed:    template("${id}.${timestamp}.${body}"),
		Headers: []HeaderSpec{
			{"webhook-id", template("${id}")},
			{"webhook-timestamp", template("${timestamp}")},
			{"webhook-signature", template("${signature}")},
		},
	}
	// Svix: the same by older names.
	svix := standard
	svix.Name = "svix"
	svix.Headers = []HeaderSpec{
		{"svix-id", template("${id}")},
		{"svix-timestamp", template("${timestamp}")},
		{"svix-signature", template("${signature}")},
	}
	// RFC 9421 signs lines of `"name": value`; the last one has the covered fields, the time and
	// the key. Several signatures are members of one dictionary, which may have several lines.
	const components = `("@method" "@target-uri" "content-digest" "content-type" "webhook-id")`
	const params = components + `;created=${timestamp};keyid="${key_id}";alg="${algorithm}"`
	return []Spec{
		standard,
		{
			Name:     "github",
			Rotation: rotationNewest,
			Signed:   template("${body}"),
			Headers: []HeaderSpec{
				{"X-GitHub-Event", template("${type}")},
				{"X-GitHub-Delivery", template("${id}")},
				{"X-Hub-Signature-256", template("sha256=${signature}")},
			},
		},
		{
			// GitHub's older header, for use together with github.
			Name:      "github-sha1",
			Algorithm: hmacSHA1,
			Rotation:  rotationNewest,
			Signed:    template("${body}"),
			Headers:   []HeaderSpec{{"X-Hub-Signature", template("sha1=${signature}")}},
		},
		{
			Name:      "stripe",
			Separator: ",v1=",
			Signed:    template("${timestamp}.${body}"),
			Headers:   []HeaderSpec{{"Stripe-Signature", template("t=${timestamp},v1=${signature}")}},
		},
		{
			Name:     "slack",
			Rotation: rotationNewest,
			Signed:   template("v0:${timestamp}:${body}"),
			Headers: []HeaderSpec{
				{"X-Slack-Request-Timestamp", template("${timestamp}")},
				{"X-Slack-Signature", template("v0=${signature}")},
			},
		},
		{
			Name:     "shopify",
			Encoding: encodingBase64,
			Rotation: rotationNewest,
			Signed:   template("${body}"),
			Headers: []HeaderSpec{
				{"X-Shopify-Topic", template("${type}")},
				{"X-Shopify-Event-Id", template("${id}")},
				{"X-Shopify-Webhook-Id", template("${id}")},
				{"X-Shopify-Hmac-Sha256", template("${signature}")},
			},
		},
		svix,
		{
			Name:     "rfc9421",
			Encoding: encodingBase64,
			Secret:   secretWhsec,
			Signed: template(`"@method": ${method}` + "\n" +
				`"@target-uri": ${url}` + "\n" +
				`"content-digest": sha-256=:${body_sha256_base64}:` + "\n" +
				`"content-type": ${content_type}` + "\n" +
				`"webhook-id": ${id}` + "\n" +
				`"@signature-params": ` + params),
			Headers: []HeaderSpec{
				{"Content-Digest", template("sha-256=:${body_sha256_base64}:")},
				{"Signature-Input", template("sig${key_number}=" + params)},
				{"Signature", template("sig${key_number}=:${signature}:")},
			},
		},
	}
}

// Standard is the scheme of Standard Webhooks 1.0.0, the default of endpoints.
func Standard() *Scheme {
	s, _ := Builtin("standard")
	return s
}

// Builtin returns the scheme that a file may name without a `signature` block.
func Builtin(name string) (*Scheme, bool) {
	for _, spec := range builtins() {
		if spec.Name == name {
			s, err := New(spec)
			if err != nil {
				panic(err) // a test makes all of them
			}
			return s, true
		}
	}
	return nil, false
}

// BuiltinNames are the names that Builtin knows.
func BuiltinNames() []string {
	var names []string
	for _, spec := range builtins() {
		names = append(names, spec.Name)
	}
	return names
}

// template reads text with ${variables}.
func template(text string) Template {
	var t Template
	for text != "" {
		literal, rest, _ := strings.Cut(text, "${")
		name, after, found := strings.Cut(rest, "}")
		t = append(t, Part{Literal: literal}, Part{Variable: name})
		if text = after; !found {
			break
		}
	}
	return slices.DeleteFunc(t, func(p Part) bool { return p == Part{} })
}
