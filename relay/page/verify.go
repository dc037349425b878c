package page

import (
	_ "embed" // for the samples
	"slices"
	"strings"

	"relay/internal/packed"
	"relay/relay/admin"
)

//go:embed samples.gz
var sampleArchive []byte

// verification is how a receiver verifies the signature of a scheme.
type verification struct {
	Scheme  string
	How     string // names text and samples: the scheme, with asymmetric behind it if the key is an Ed25519 one
	Known   bool   // the scheme is built in: there is a text on how it is computed
	Samples []codeSample
}

// asymmetric stands behind a scheme that signs with an Ed25519 key.
const asymmetric = "-ed25519"

// codeSample is a function that verifies.
type codeSample struct{ ID, Language, Text string }

// verifications are those of an endpoint, whose newest secret is an Ed25519 key or not. It is signed as Standard Webhooks
// says unless its settings say otherwise.
func verifications(e *admin.Endpoint, ed25519 bool) (all []verification) {
	schemes := []string{"standard"}
	settings, _ := readSettings(e.Made.Settings)
	if sign, is := settings["sign"].([]any); is {
		schemes = nil
		for _, one := range sign {
			if name, is := one.(string); is && name != "none" {
				schemes = append(schemes, name)
			}
		}
	}
	samples := packed.Files(sampleArchive) // this screen is seldom shown, so they are not kept
	for _, scheme := range schemes {
		v := verification{Scheme: scheme, How: scheme, Known: slices.Contains(explainedSchemes(), scheme)}
		if ed25519 && slices.Contains(explainedSchemes(), scheme+asymmetric) {
			v.How += asymmetric
		}
		for _, language := range []struct{ name, ending string }{{"Node.js", "mjs"}, {"Python", "py"}, {"Go", "go.txt"}} {
			if text, is := samples[v.How+"."+language.ending]; is {
				v.Samples = append(v.Samples, codeSample{v.How + "-" + strings.TrimSuffix(language.ending, ".txt"), language.name, strings.TrimSpace(text)})
			}
		}
		all = append(all, v)
	}
	return all
}

// explainedSchemes are those with a text on what is signed, and where the signature is.
func explainedSchemes() []string {
	return []string{"standard", "svix", "stripe", "github", "github-sha1", "slack", "shopify", "rfc9421",
		"standard" + asymmetric, "svix" + asymmetric, "rfc9421" + asymmetric}
}
