package redisstream

import (
	"testing"

	"relay/internal/testkit/golden"
)

// The binary has the scripts that lie in the folder.
func TestScriptsArePacked(t *testing.T) {
	golden.Packed(t, "lua")
}
