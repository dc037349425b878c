package config

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
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

// Limits of the files that a configuration names, in bytes.
const (
	maxFile = 64 * KiB // of what file() reads
	maxPEM  = MiB      // a bundle of authorities can have hundreds
)

// file reads a regular file, at real, and takes note of it as path, also when it cannot be
// read: it may come. It warns where other users of the machine can read it.
func (r *reads) file(path, real string, limit int64, warn func(string)) (data []byte, err error) {
	defer func() { r.add(path, data) }()
	info, err := os.Stat(real)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, reason(err))
	}
	defer f.Close()
	if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, reason(err))
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %s", path, FormatSize(limit))
	}
	if info.Mode().Perm()&0o004 != 0 {
		warn(fmt.Sprintf("%s holds a secret and every user of this machine can read it; chmod 0600 it", path))
	}
	return data, nil
}

// PEM reads the file that an attribute names. A private key that other users of the
// machine can read is warned about.
func (b *Block) PEM(name string, private bool) ([]byte, bool) {
	var path string
	if !b.String(name, &path, checkFile) {
		return nil, false
	}
	warn := func(string) {}
	if private {
		warn = b.file.warn
	}
	data, err := b.file.reads.file(path, path, maxPEM, warn)
	if err != nil {
		b.Invalid(name, err.Error())
		return nil, false
	}
	return data, true
}

// Reads names all files that the configuration depends on: its own, those that file() was
// asked for and PEM files of endpoints, also where they could not be read. They are read
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
