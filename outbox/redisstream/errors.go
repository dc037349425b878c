package redisstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// fault is an error of Redis in the words of the contract, with what an operator
// needs to know.
type fault struct {
	kind  error  // outbox.ErrFull or outbox.ErrUnavailable
	code  string // stable, in snake_case
	what  string // what is the matter
	next  string // what to look at
	cause error  // what Redis said, nil for what Relay saw itself
}

func (f *fault) Error() string {
	if f.cause == nil {
		return fmt.Sprintf("%v: %s: %s", f.kind, f.what, f.next)
	}
	return fmt.Sprintf("%v: %s: %s (redis: %s)", f.kind, f.what, f.next, quote(f.cause))
}

func (f *fault) Unwrap() []error { return []error{f.kind, f.cause} }

// quote is an error's text without what may be payload: Redis repeats the
// arguments of a command that it does not know.
func quote(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}

// explain turns an error of go-redis into one of the contract: ErrFull or
// ErrUnavailable with what an operator should look at. Errors of a context that
// ended and redis.Nil stay as they are; so does what is an error of the contract already.
func explain(err error) error {
	if err == nil || isNil(err) || isContext(err) ||
		errors.Is(err, outbox.ErrUnavailable) || errors.Is(err, outbox.ErrFull) {
		return err
	}
	f := &fault{kind: outbox.ErrUnavailable, code: reply(err), cause: err}
	if f.code == "" {
		f.code = broken(err)
	}
	f.what, f.next = advice(f.code)
	if f.code == "oom" {
		f.kind = outbox.ErrFull
	}
	return f
}

func timedOut(err error) error {
	what, next := advice("timeout")
	return &fault{outbox.ErrUnavailable, "timeout", what, next, err}
}

// advice is what an operator reads about a code: what is the matter, and what next.
func advice(code string) (what, next string) {
	switch code {
	case "oom":
		return "redis is at its maxmemory", "deliveries free space; else raise maxmemory or lower max_size"
	case "loading":
		return "redis is loading its data", "it goes on by itself; INFO persistence shows how far it is"
	case "readonly":
		return "redis is a replica now", "after a failover this passes; else name the master, or use a sentinel or cluster block"
	case "misconf":
		return "redis cannot write to its disk", "look for a full disk or wrong permissions in the log of redis"
	case "noreplicas":
		return "redis has fewer replicas than its min-replicas-to-write", "look at INFO replication on the master"
	case "masterdown":
		return "redis is a replica that has lost its master", "look at the master and the link to it"
	case "clusterdown":
		return "the redis cluster does not serve all slots", "look at CLUSTER INFO and CLUSTER NODES"
	case "tryagain", "moved", "ask":
		return "a slot of the redis cluster is moving to another node", "this passes when the move is over"
	case "no_master":
		return "no sentinel knows this master", "check master and addrs in the sentinel block, and SENTINEL MASTERS on a sentinel"
	case "max_clients":
		return "redis takes no more connections", "raise its maxclients, or look who holds so many: CLIENT LIST"
	case "busy":
		return "redis is busy with a script of somebody", "wait, or end it with SCRIPT KILL"
	case "noscript":
		return "redis has forgotten a script", "this passes: it is loaded again"
	case "unauthenticated":
		return "redis does not know this user or password", "check username and password in the outbox block, and ACL LIST on the server"
	case "no_permission":
		return "redis does not allow this user a command or key that relay needs", "ACL LOG on the server tells which; allow it with ACL SETUSER"
	case "wrong_type":
		return "a key of this namespace holds something of another type", "another program uses the same names: choose another namespace"
	case "unfit":
		return "redis may lose accepted events", "set right what is told of it: it is seen within seconds"
	case "protected":
		return "redis is in protected mode and answers only its own machine", "set a password there, or bind and protected-mode"
	case "no_cluster":
		return "the redis server is not in cluster mode", "write url instead of the cluster block"
	case "no_database":
		return "redis does not have this database", "check database or the number in url; a cluster has only 0"
	case "no_aof":
		return "redis has its append-only file switched off", "durability = \"fsync\" needs appendonly yes"
	case "unknown_command":
		return "redis does not know a command that relay needs", "relay needs Redis 7.0 or Valkey 7.2, without renamed commands"
	case "no_group":
		return "a stream or its group is gone", "somebody deleted keys of this namespace"
	case "refused":
		return "redis refused a command", "its own words may tell why"
	case "closed":
		return "the connections to redis are closed", "relay is stopping"
	case "pool_timeout":
		return "all connections to redis are busy", "redis answers too slowly: look at SLOWLOG GET and its CPU"
	case "timeout":
		return "redis does not answer in time", "look whether it hangs, is overloaded or is behind a slow network"
	case "tls":
		return "the TLS handshake with redis has gone wrong", "check ca, cert, key and server_name in the tls block"
	case "dial":
		return "redis cannot be reached", "check that it runs, its address, and firewalls on the way"
	default:
		return "the connection to redis broke", "look whether redis was restarted, is at its maxclients, or something on the way cut it"
	}
}

// reply is the code of an error that Redis answered, "" for any other error. Redis
// has no error numbers: this is the one place that reads its words.
func reply(err error) string {
	said, ok := errors.AsType[redis.Error](err)
	if !ok || isNil(err) {
		return ""
	}
	if said == redis.Nil {
		return "no_master" // within the error of a Sentinel client
	}
	text := said.Error()
	first, _, _ := strings.Cut(text, " ")
	switch first {
	case "OOM", "LOADING", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "NOSCRIPT":
		return strings.ToLower(first)
	case "NOAUTH", "WRONGPASS":
		return "unauthenticated"
	case "NOPERM":
		return "no_permission"
	case "WRONGTYPE":
		return "wrong_type"
	case "DENIED":
		return "protected"
	case "NOGROUP", "UNBLOCKED":
		return "no_group"
	}
	for _, s := range []struct{ has, code string }{
		{"max number of clients", "max_clients"},
		{"The user executing the script can't", "no_permission"}, // Redis 7.0
		{"ACL failure in script", "no_permission"},               // Redis 7.2 and later
		{"unknown command", "unknown_command"},
		{"cluster support disabled", "no_cluster"},
		{"SELECT is not allowed in cluster mode", "no_database"},
		{"DB index is out of range", "no_database"},
		{"invalid DB index", "no_database"},
		{"appendonly is disabled", "no_aof"},
		{"without any password configured", "unauthenticated"},
	} {
		if strings.Contains(text, s.has) {
			return s.code
		}
	}
	return "refused"
}

// broken is the code of an error that is not a reply.
func broken(err error) string {
	op, _ := errors.AsType[*net.OpError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, redis.ErrClosed), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return "pool_timeout"
	case isTLS(err):
		return "tls"
	case op != nil && op.Op == "dial":
		return "dial"
	case timeout != nil && timeout.Timeout():
		return "timeout"
	}
	return "disconnected"
}

func isTLS(err error) bool {
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	return cert || alert || plain
}

// isContext tells whether a context ended. A timeout of the network only claims to
// be context.DeadlineExceeded.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || exactly(err, context.DeadlineExceeded)
}

// exactly finds target itself in the chain, not an error that claims to be it.
func exactly(err, target error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if any(err) == any(target) {
			return true
		}
	}
	return false
}

// isNil: Redis answered that there is nothing. Compare in this way only: a Sentinel
// client that finds no master has a redis.Nil inside its error.
func isNil(err error) bool { return exactly(err, redis.Nil) }

// isNoScript: the script must be sent in full; it has not run.
func isNoScript(err error) bool { return reply(err) == "noscript" }

// isMoved: another node of the Cluster has the key now; nothing was done here.
func isMoved(err error) bool {
	code := reply(err)
	return code == "moved" || code == "ask"
}

// retryable tells whether the same command may succeed soon without anybody's
// doing. It says nothing about whether the first one ran: see uncertain.
func retryable(err error) bool {
	if err == nil || isNil(err) || isContext(err) {
		return false
	}
	code := reply(err)
	if code == "" {
		code = broken(err)
	}
	switch code {
	case "loading", "readonly", "misconf", "noreplicas", "masterdown", "clusterdown", "tryagain", "moved", "ask", "busy", "noscript",
		"no_master", "max_clients", "pool_timeout", "timeout", "dial", "disconnected":
		return true
	}
	return false
}

// uncertain tells whether the command may have been executed although it brought
// an error: it was sent, or may have been, and no reply was read.
func uncertain(err error) bool {
	if err == nil || isNil(err) || reply(err) != "" {
		return false
	}
	switch broken(err) {
	case "dial", "pool_timeout", "tls":
		return false
	case "closed": // before a connection was taken, or while a reply was awaited
		return !errors.Is(err, redis.ErrClosed)
	}
	return true
}
