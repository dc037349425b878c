package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"relay/outbox"
)

// Take implements outbox.Limiter. Buckets are in the first shard, by the clock of
// Redis. An outbox that was emptied has full buckets, and a failover may give back what
// was taken in its last moment.
func (s *Store) Take(ctx context.Context, endpoint string, l outbox.Limit, n int) (taken int, wait time.Duration, err error) {
	if l.N < 1 || l.Per <= 0 || l.Burst < 1 || n < 1 {
		return 0, 0, fmt.Errorf("take %d tokens of endpoint %s: a limit of %d in %s with a burst of %d gives none", n, endpoint, l.N, l.Per, l.Burst)
	}
	// Units, so that a microsecond and a token are whole numbers of them.
	rate, token := int64(l.N)*int64(time.Microsecond), int64(l.Per)
	common := divisor(rate, token)
	sh := s.shards[0]
	v, err := s.ask(ctx, func(ctx context.Context, _ *session) (any, error) {
		return sh.eval(ctx, &s.scripts.take, []string{sh.bucket(endpoint)}, []any{rate / common, token / common, l.Burst, n})
	})
	if err != nil {
		return 0, 0, err
	}
	answer, err := texts(v, 2)
	if err != nil {
		return 0, 0, err
	}
	taken, _ = strconv.Atoi(answer[0])
	micros, _ := strconv.ParseInt(answer[1], 10, 64)
	return taken, time.Duration(micros) * time.Microsecond, nil
}

// divisor is the greatest common one of two positive numbers.
func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
