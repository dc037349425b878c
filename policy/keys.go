package policy

import (
	"slices"

	"relay/policy/sign"
)

// PublicKeys are the keys that receivers verify signatures with, each once, in the order of the
// file: of a rotation, new and old ones. Shared secrets have none.
func (p *Policy) PublicKeys() sign.JWKS {
	set := sign.JWKS{Keys: []sign.JWK{}}
	for _, e := range p.Endpoints {
		for _, s := range e.Signers {
			for _, k := range s.PublicKeys() {
				if !slices.Contains(set.Keys, k) {
					set.Keys = append(set.Keys, k)
				}
			}
		}
	}
	return set
}
