package redisstream_test

import (
	"testing"

	"relay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
