package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
)

// reads is what a configuration was made of: a hash of the content of each file, by path.
type reads map[string][sha256.Size]byte

func (r *reads) add(path string, content []byte) {
	if *r == nil {
		*r = reads{}
	}
	(*r)[path] = sha256.Sum256(content)
}

// Reads names all files that the configuration depends on: its own, and those that
// file() was asked for, also where they could not be read. Expressions are evaluated
// when they are decoded, so policy.Decode can add some.
func (f *File) Reads() []string { return slices.Sorted(maps.Keys(f.reads)) }

// Digest differs when the content of any of the files does. It is made of secrets,
// too: it may be compared, and must not leave the process.
func (f *File) Digest() Digest {
	h := sha256.New()
	for _, path := range f.Reads() {
		fmt.Fprintf(h, "%q %x\n", path, f.reads[path])
	}
	return Digest{[sha256.Size]byte(h.Sum(nil))}
}

// Digest is comparable, and prints as redacted.
type Digest struct{ sum [sha256.Size]byte }

// Format implements fmt.Formatter, for every verb.
func (Digest) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }
