package redisstream

import (
	"github.com/redis/go-redis/v9"
)

// otherConns is how many connections Connect may open.
const otherConns = 4

// Connect returns a client to the server of the options, for what is kept there beside the
// outbox. It follows a Cluster's redirects. It does no I/O but reading TLS files.
func Connect(o Options) (redis.UniversalClient, error) {
	redis.SetLogger(mute{}) // as in connect
	u, err := o.client()
	if err != nil {
		return nil, err
	}
	u.MaxRedirects, u.PoolSize = 3, otherConns
	return redis.NewUniversalClient(u), nil
}
