// Package redistest starts real redis-servers for tests: a single one, a master
// with Sentinels, a Cluster, and a proxy between a client and a server that
// loses replies, hangs and cuts connections on cue. A machine without
// redis-server fails the test.
package redistest
