package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"relay/internal/seal"
)

// minAccessToken is the least length of the token of an access block, in bytes: nobody guesses it.
const minAccessToken = 16

// keys reads a list of keys.
func (b *Block) keys(name string) (keys []Secret) {
	items, _ := b.Secrets(name)
	if len(items) > maxKeys {
		b.Invalid(name, fmt.Sprintf("at most %d keys can be listed.", maxKeys))
	}
	for _, item := range items {
		if len(item.Value) < seal.MinKey {
			b.Fail(item.Place, "Invalid "+name, fmt.Sprintf("a key has at least %d characters: make one with openssl rand -hex 32", seal.MinKey))
			continue
		}
		keys = append(keys, NewSecret(item.Value))
	}
	return keys
}

// readAccess reads the access blocks of admin, whose own token is whole.
func readAccess(b *Block, whole Secret) []Access {
	var all []Access
	for _, block := range b.Unique(b.Blocks("access", true)) {
		a := Access{Name: block.Name}
		if block.Name == "" || len(block.Name) > 64 || strings.ContainsFunc(block.Name, unicode.IsControl) {
			block.Fail(block.Label(), "Invalid name", "a name is 1 to 64 characters.")
		}
		if block.Require("token", `token = env("…")`) {
			block.Secret("token", &a.Token, func(s string) error {
				if len(s) < minAccessToken {
					return fmt.Errorf("a token has at least %d characters: make one with openssl rand -hex 32", minAccessToken)
				}
				return checkToken(s)
			})
		} else {
			block.Secret("token", &a.Token, checkToken)
		}
		block.Require("may", `may = ["read"]; others are `+strings.Join(AccessRights()[1:], ", "))
		block.Strings("may", &a.May, OneOf(AccessRights()...))
		readBound(block, "tenants", &a.Tenants)
		readBound(block, "endpoints", &a.Endpoints)
		block.Done()
		if same := slices.IndexFunc(all, func(x Access) bool { return a.Token.Reveal() != "" && x.Token.Equal(a.Token) }); same >= 0 {
			block.Fail(block.Label(), "Duplicate token", fmt.Sprintf("access %q has the same token.", all[same].Name))
		}
		if a.Token.Reveal() != "" && a.Token.Equal(whole) {
			block.Fail(block.Label(), "Duplicate token", "it is the token of admin, which has the whole power: give the access one of its own.")
		}
		all = append(all, a)
	}
	return all
}

// readBound reads names that an access is bound to.
func readBound(b *Block, name string, to *[]string) {
	given := b.Strings(name, to, func(s string) error {
		if s == "" || len(s) > 256 {
			return fmt.Errorf("a name is 1 to 256 characters")
		}
		return nil
	})
	if given && len(*to) == 0 {
		b.Invalid(name, "An empty list would show nothing. Leave it out for all.")
	}
}
