package config

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// environ is an environment for tests.
type environ map[string]string

func (e environ) get(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}
