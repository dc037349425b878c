package app

import (
	"testing"

	"go.uber.org/goleak"
)

// The two that are let be belong to libraries: one ends a closed connection within half a
// second, the other lives as long as the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}
