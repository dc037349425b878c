package redisstream

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"slices"
)

// script is a Lua script. Redis knows it by the SHA-1 of its text.
type script struct{ name, text, sha string }

// scripts are all that change the outbox: each is one step that happens wholly
// or, refused before its first write, not at all. Only accept, redeliver and record are refused when Redis
// is out of memory: the others drain, or keep what is needed to drain.
type scripts struct {
	join, leave, accept, claim, settle, forget, expire, tick, counts, reap, check, mend, free, notes, setnote, take,
	roll, fold, rows, seal, peek, alive, redeliver, retry, discard, erase, record, setdoc, line script
}

// past are the scripts that change what was accepted long ago.
var past = []string{"reap", "forget", "redeliver", "retry", "discard", "erase"}

//go:embed lua
var files embed.FS

func loadScripts() (s scripts, err error) {
	lib, err := files.ReadFile("lua/lib.lua")
	if err != nil {
		return scripts{}, err
	}
	edits, err := files.ReadFile("lua/past.lua")
	if err != nil {
		return scripts{}, err
	}
	for name, to := range map[string]*script{
		"join": &s.join, "leave": &s.leave, "accept": &s.accept, "claim": &s.claim, "settle": &s.settle,
		"forget": &s.forget, "expire": &s.expire, "tick": &s.tick, "counts": &s.counts, "reap": &s.reap,
		"check": &s.check, "mend": &s.mend, "free": &s.free,
		"notes": &s.notes, "setnote": &s.setnote, "take": &s.take,
		"roll": &s.roll, "fold": &s.fold, "rows": &s.rows, "seal": &s.seal, "peek": &s.peek, "alive": &s.alive,
		"redeliver": &s.redeliver, "retry": &s.retry, "discard": &s.discard, "erase": &s.erase, "record": &s.record,
		"setdoc": &s.setdoc, "line": &s.line,
	} {
		body, err := files.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return scripts{}, err
		}
		flags := "#!lua flags=allow-oom\n"
		if name == "accept" || name == "redeliver" || name == "record" {
			flags = "#!lua\n"
		}
		text := flags + string(lib)
		if slices.Contains(past, name) {
			text += string(edits)
		}
		*to = newScript(name, text+string(body))
	}
	return s, nil
}

func newScript(name, text string) script {
	sum := sha1.Sum([]byte(text))
	return script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}
