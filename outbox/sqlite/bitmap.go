package sqlite

import (
	"encoding/binary"
	"math/bits"

	"github.com/ncruces/go-sqlite3"
)

// bitmap has a bit for each delivery of a segment.
type bitmap [segmentSize / 64]uint64

func (b *bitmap) set(place uint64)      { b[place/64] |= 1 << (place % 64) }
func (b *bitmap) clear(place uint64)    { b[place/64] &^= 1 << (place % 64) }
func (b *bitmap) has(place uint64) bool { return b[place/64]&(1<<(place%64)) > 0 }

func (b *bitmap) and(o *bitmap) {
	for i := range b {
		b[i] &= o[i]
	}
}

func (b *bitmap) or(o *bitmap) {
	for i := range b {
		b[i] |= o[i]
	}
}

func (b *bitmap) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// keep clears all bits but those from one to another.
func (b *bitmap) keep(from, to int64) {
	for i := range b {
		first := int64(i * 64)
		switch {
		case first+63 < from || first > to:
			b[i] = 0
		default:
			if from > first {
				b[i] &= ^uint64(0) << (from - first)
			}
			if to < first+63 {
				b[i] &= ^uint64(0) >> (first + 63 - to)
			}
		}
	}
}

// last is the highest bit, first the lowest; -1 for none.
func (b *bitmap) last() int64 {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return int64(i*64 + 63 - bits.LeadingZeros64(b[i]))
		}
	}
	return -1
}

func (b *bitmap) first() int64 {
	for i := range b {
		if b[i] != 0 {
			return int64(i*64 + bits.TrailingZeros64(b[i]))
		}
	}
	return -1
}

// The first byte of a list says how it is written.
const (
	listPlaces = 0 // distances, as uvarints
	listBitmap = 1 // a bit for each place
)

// appendList encodes the places of pairs of one term.
func appendList(b []byte, pairs []uint64) []byte {
	if len(pairs) > segmentSize/8 {
		var set bitmap
		for _, pair := range pairs {
			set.set(pair & (segmentSize - 1))
		}
		b = append(b, listBitmap)
		for _, word := range set {
			b = binary.LittleEndian.AppendUint64(b, word)
		}
		return b
	}
	b = append(b, listPlaces)
	last := uint64(0)
	for _, pair := range pairs {
		place := pair & (segmentSize - 1)
		b = binary.AppendUvarint(b, place-last)
		last = place
	}
	return b
}

// readList adds what appendList wrote to a bitmap.
func readList(b []byte, set *bitmap) error {
	if len(b) == 0 {
		return sqlite3.CORRUPT
	}
	if b[0] == listBitmap {
		if len(b) != 1+segmentSize/8 {
			return sqlite3.CORRUPT
		}
		for i := range set {
			set[i] |= binary.LittleEndian.Uint64(b[1+8*i:])
		}
		return nil
	}
	r, place := reader{b: b[1:]}, uint64(0)
	for len(r.b) > 0 {
		if place += r.uvarint(); r.broken || place >= segmentSize {
			return sqlite3.CORRUPT
		}
		set.set(place)
	}
	return nil
}

// rareOf is what is kept of a term in the row of its bucket. Terms keep their order.
func rareOf(term uint64) uint32 { return uint32(term >> (64 - segmentBits - bucketBits - 32)) }

// appendRare encodes a term and its places in a row of a bucket: distances, each with a bit that says whether it is the last.
func appendRare(b []byte, term uint64, pairs []uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, rareOf(term))
	last := uint64(0)
	for i, pair := range pairs {
		place := pair & (segmentSize - 1)
		code := (place - last) << 1
		if i == len(pairs)-1 {
			code |= 1
		}
		b = binary.AppendUvarint(b, code)
		last = place
	}
	return b
}

// readRare adds the places of a term to a bitmap.
func readRare(b []byte, term uint64, set *bitmap) error {
	want, r := rareOf(term), reader{b: b}
	for len(r.b) > 0 {
		head := r.bytes(4)
		if r.broken {
			return sqlite3.CORRUPT
		}
		at := binary.BigEndian.Uint32(head)
		if at > want {
			return nil
		}
		for place, more := uint64(0), true; more; {
			code := r.uvarint()
			if place += code >> 1; r.broken || place >= segmentSize {
				return sqlite3.CORRUPT
			}
			if at == want {
				set.set(place)
			}
			more = code&1 == 0
		}
	}
	return nil
}
