package redisstream

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

// script is a Lua script. Redis knows it by the SHA-1 of its text.
type script struct{ name, text, sha string }

// scripts are all that change the outbox: each is one step that happens wholly
// or, refused before its first write, not at all. Only accept is refused when Redis
// is out of memory: the others drain, or keep what is needed to drain.
type scripts struct {
	join, leave, accept, claim, settle, forget, expire, tick, counts, reap, check, mend, free, notes, setnote, take script
}

//go:embed lua
var files embed.FS

func loadScripts() (s scripts, err error) {
	lib, err := files.ReadFile("lua/lib.lua")
	if err != nil {
		return scripts{}, err
	}
	for name, to := range map[string]*script{
		"join": &s.join, "leave": &s.leave, "accept": &s.accept, "claim": &s.claim, "settle": &s.settle,
		"forget": &s.forget, "expire": &s.expire, "tick": &s.tick, "counts": &s.counts, "reap": &s.reap,
		"check": &s.check, "mend": &s.mend, "free": &s.free,
		"notes": &s.notes, "setnote": &s.setnote, "take": &s.take,
	} {
		body, err := files.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return scripts{}, err
		}
		flags := "#!lua flags=allow-oom\n"
		if name == "accept" {
			flags = "#!lua\n"
		}
		*to = newScript(name, flags+string(lib)+string(body))
	}
	return s, nil
}

func newScript(name, text string) script {
	sum := sha1.Sum([]byte(text))
	return script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}
