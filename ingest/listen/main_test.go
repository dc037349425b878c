package listen

import (
	"os"
	"testing"

	"relay/internal/testkit"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(holdSocketEnv); path != "" {
		holdSocket(path)
	}
	testkit.Main(m)
}
