package app

import (
	"testing"

	"relay/config"
)

// All connections together stay below the limit of open files, and none of the parts is
// left without.
func TestShareFiles(t *testing.T) {
	sqlite := config.Config{
		Ingest: config.Ingest{Unix: make([]config.Unix, 1), HTTP: make([]config.HTTP, 1)},
		Admin:  config.Admin{HTTP: "127.0.0.1:7071"}, Outbox: config.Outbox{Engine: "sqlite"},
	}
	many := sqlite
	many.Ingest.HTTP, many.Admin.Unix = make([]config.HTTP, 5), "admin.sock"
	redis := sqlite
	redis.Outbox = config.Outbox{Engine: "redis", Redis: config.Redis{Shards: 4}}
	fronts := sqlite
	fronts.Fronts = []config.Front{{HTTPS: []string{":443"}, HTTP: []string{":80"}}, {HTTPS: []string{":443"}}}
	for _, c := range []struct {
		name  string
		limit int
		c     config.Config
		want  shares
	}{
		{"few", 64, sqlite, shares{64, 6, 4, 2, 12}},
		{"usual", 1024, sqlite, shares{1024, 186, 124, 62, 332}},
		{"plenty", 1 << 20, sqlite, shares{1 << 20, 1024, 1024, 16384, 349516}},
		{"many listeners", 256, many, shares{256, 13, 13, 13, 70}},
		{"redis", 256, redis, shares{256, 38, 25, 12, 68}},
		{"fronts", 1024, fronts, shares{1024, 93, 61, 123, 165}},
		{"far too few", 16, sqlite, shares{16, 2, 2, 2, 2}},
	} {
		got := shareFiles(c.limit, c.c)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
