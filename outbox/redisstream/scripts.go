package redisstream

import (
	"crypto/sha1"
	_ "embed" // for the scripts
	"encoding/hex"
	"slices"

	"relay/internal/packed"
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

//go:embed lua.gz
var archive []byte

func loadScripts() (s scripts) {
	files := packed.Files(archive)
	for name, to := range map[string]*script{
		"join": &s.join, "leave": &s.leave, "accept": &s.accept, "claim": &s.claim, "settle": &s.settle,
		"forget": &s.forget, "expire": &s.expire, "tick": &s.tick, "counts": &s.counts, "reap": &s.reap,
		"check": &s.check, "mend": &s.mend, "free": &s.free,
		"notes": &s.notes, "setnote": &s.setnote, "take": &s.take,
		"roll": &s.roll, "fold": &s.fold, "rows": &s.rows, "seal": &s.seal, "peek": &s.peek, "alive": &s.alive,
		"redeliver": &s.redeliver, "retry": &s.retry, "discard": &s.discard, "erase": &s.erase, "record": &s.record,
		"setdoc": &s.setdoc, "line": &s.line,
	} {
		body, is := files[name+".lua"]
		if !is {
			panic("redisstream: there is no script " + name)
		}
		flags := "#!lua flags=allow-oom\n"
		if name == "accept" || name == "redeliver" || name == "record" {
			flags = "#!lua\n"
		}
		text := flags + files["lib.lua"]
		if slices.Contains(past, name) {
			text += files["past.lua"]
		}
		*to = newScript(name, text+body)
	}
	return s
}

func newScript(name, text string) script {
	sum := sha1.Sum([]byte(text))
	return script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}
