package page

import (
	"testing"

	"relay/internal/testkit/golden"
)

// The binary has what lies in the folders.
func TestFilesArePacked(t *testing.T) {
	for _, folder := range []string{"assets", "samples", "templates", "texts"} {
		golden.Packed(t, folder)
	}
}
