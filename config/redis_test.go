package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestRedisWhere(t *testing.T) {
	for _, tt := range []struct {
		r    Redis
		want string
	}{
		{Redis{}, ""},
		{Redis{URL: NewSecret("redis://h"), Database: -1}, "redis://h"},
		{Redis{URL: NewSecret("redis://me:secret@h:1/2"), Database: -1}, "redis://me:***@h:1/2"},
		{Redis{URL: NewSecret("rediss://:secret@[::1]:1/"), Database: -1}, "rediss://:***@[::1]:1/"},
		{Redis{URL: NewSecret("redis://me@h/2"), Password: NewSecret("secret"), Database: 0}, "redis://me:***@h/0"},
		{Redis{URL: NewSecret("redis://me:secret@h"), Username: "y@u", Database: 7}, "redis://y%40u:***@h/7"},
		{Redis{URL: NewSecret("unix://me:secret@/run/redis.sock"), Database: -1}, "unix://me:***@/run/redis.sock"},
		{Redis{URL: NewSecret("unix:///run/redis.sock?db=2"), Database: 3}, "unix:///run/redis.sock?db=3"},
		{Redis{URL: NewSecret("redis://me:secret%@h"), Database: -1}, ""},
		{Redis{Sentinel: &Sentinel{Master: "m", Addrs: []string{"a:1", "b:2"}, Password: NewSecret("secret")}, Password: NewSecret("secret")}, "master m of the sentinels a:1, b:2"},
		{Redis{Cluster: []string{"a:1"}, Password: NewSecret("secret")}, "cluster a:1"},
	} {
		if got := tt.r.Where(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
		tt.r.Namespace = "orders"
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if got := fmt.Sprintf(verb, Outbox{Redis: tt.r}); strings.Contains(got, "secret@") || strings.Contains(got, "=secret") || !strings.Contains(got, "namespace=orders") {
				t.Errorf("%s: %s", verb, got)
			}
		}
		if got := fmt.Sprintf("%#v", Outbox{Redis: tt.r}); strings.Contains(got, "secret") {
			t.Errorf("%%#v: %s", got)
		}
	}
}

// Errors about a URL quote no part of it.
func TestRedisURLErrorsShowNothing(t *testing.T) {
	for _, url := range []string{
		"secret", "secret://h", "redis://secret@", "redis://:secret", "redis://h:secret", "redis://u:secret%@h", "redis://u:sec\x7fret@h",
		"redis://u:p@h/secret", "redis://u:p@h?secret", "redis://u:p@h#secret", "unix:secret", "unix:///a?secret=1", "unix:///a?db=secret", "redis:secret",
		"redis://u:p#secret@h", "redis://u:p?secret@h", "redis://u:p/secret@h", "redis://[secret]", "redis://h secret", "unix:///" + strings.Repeat("secret", 20),
	} {
		if err := checkRedisURL(url); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, url := range []string{
		"redis://h", "redis://h/", "redis://h:6379/15", "rediss://u:p%40@10.0.0.1:1", "redis://[::1]:1/0", "unix:///a", "unix://u:p@/a?db=0", "redis://my_redis",
	} {
		if err := checkRedisURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}
