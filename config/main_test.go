package config

import (
	"testing"

	"relay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// environ is an environment for tests.
type environ map[string]string

func (e environ) get(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}
