package app

import (
	"testing"

	"go.uber.org/goleak"
)

// The one that is let be belongs to a library: it ends a closed connection within half a
// second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}
