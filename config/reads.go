package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// reads has a hash of the content of each file that a configuration was made of, by path.
type reads map[string][sha256.Size]byte

func (r *reads) add(path string, content []byte) {
	if *r == nil {
		*r = reads{}
	}
	(*r)[path] = sha256.Sum256(content)
}

// Limits of the files that a configuration names, in bytes.
const (
	maxFile = 64 * KiB // of a file that file() reads
	maxPEM  = MiB      // a bundle can have hundreds of authorities
)

// file reads a regular file, at real, and records it as path, even if it cannot be read, because
// it may appear later. open reports whether other users of the machine can read it.
func (r *reads) file(path, real string, limit int64) (data []byte, open bool, err error) {
	defer func() { r.add(path, data) }()
	info, err := os.Stat(real)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() { // opening a pipe would block
		return nil, false, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, reason(err))
	}
	defer f.Close()
	if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, reason(err))
	}
	if int64(len(data)) > limit {
		return nil, false, fmt.Errorf("%s is larger than %s", path, FormatSize(limit))
	}
	return data, info.Mode().Perm()&0o004 != 0, nil
}

// PEM reads an attribute that is the path of a PEM file, or its content. A private key
// that other users of the machine can read is warned about.
func (b *Block) PEM(name string, private bool) ([]byte, bool) {
	var value Secret
	if !b.pem(name, &value) {
		return nil, false
	}
	path := value.Reveal()
	if isPEM(path) {
		return []byte(path), true
	}
	a := b.attr(name)
	p := place(a, true, a.Expr)
	if b.file.fragment {
		b.Fail(p, "Invalid "+name, "paths are for the file alone: give the PEM itself, from -----BEGIN on")
		return nil, false
	}
	data, open, err := b.file.reads.file(path, path, maxPEM)
	if err != nil {
		if p.Quote("") != "" { // its text would name the path
			err = errors.New("the file that env() or file() names cannot be read. A relative path starts at the working directory")
		}
		b.Fail(p, "Invalid "+name, err.Error())
		return nil, false
	}
	if open && private {
		b.WarnOnce(name, path, "the file holds a private key and every user of this machine can read it; chmod 0600 it")
	}
	return data, true
}

// pem reads the path of a PEM file, or its content.
func (b *Block) pem(name string, to *Secret) bool {
	return b.secret(name, "PEM", to, func(s string) error {
		if s == "" || !isPEM(s) && strings.ContainsAny(s, "\x00\r\n") {
			return errors.New("write the path of a PEM file, or its content, which begins with -----BEGIN")
		}
		return nil
	})
}

func isPEM(s string) bool { return strings.Contains(s, "-----BEGIN ") }

// Reads names all files that the configuration depends on: its own files, those of calls of
// file(), and PEM files of endpoints, even if they could not be read. policy.Decode can add some.
func (f *File) Reads() []string { return slices.Sorted(maps.Keys(f.reads)) }

// Digest changes with the content of any of the files. It is computed over secrets, too, so it
// must not leave the process.
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
