package listen

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(holdSocketEnv); path != "" {
		holdSocket(path)
	}
	goleak.VerifyTestMain(m)
}
