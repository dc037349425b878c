// Package brief keeps the heads of requests and answers in few bytes. Most of a head is the same in
// all of them, or follows from the delivery that it belongs to: a head of 250 bytes becomes one of
// 50, most of them the URL. What is kept stands for itself: no other row or key is needed to read it.
package brief

import (
	"strconv"
	"strings"
	"time"
)

// Facts are what a reader of a head knows of it from elsewhere.
type Facts struct {
	Event    string // its id
	Delivery string // its id
	Attempt  int    // its number
	Started  time.Time
}

// A brief head begins with one of these bytes. Any other text is a head as it is.
const (
	packed = 0x01 // codes and texts
	plain  = 0x02 // then a head as it is, which could be taken for a brief one
)

// Codes of what follows from Facts, and of the ends of lines. Texts have no bytes below 0x20, so
// all of those are codes. What a code stands for never changes.
const (
	lineEnd   = 0x03
	theEvent  = 0x04
	theID     = 0x05
	theNumber = 0x06
	theUnix   = 0x07 // then a byte: by how many seconds a Unix time is after the start
	theDate   = 0x08 // the same for an HTTP date
)

const firstWord = 0x0a

// words are begins of lines; the place of each, from firstWord on, is its code. Where one begins with another, the longer
// one comes first.
var words = [...]string{
	"POST http://", "POST https://", "Content-Type: application/json", "Content-Type: ", "User-Agent: Relay/",
	"webhook-id: ", "webhook-timestamp: ", "webhook-signature: ***", "Relay-Attempt: ", "Relay-Delivery: ", "traceparent: 00-",
	"HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 ", "Date: ", "Server: ", "Content-Length: ",
	"Connection: keep-alive", "Connection: ", "Vary: ", "Cache-Control: ", "X-Request-Id: ",
}

// near is by how many seconds at most a time is before the start, or after it, that has a code.
const near = 47

// Pack appends a head. It is never longer by more than a byte.
func (f *Facts) Pack(b []byte, head string) []byte {
	if head == "" {
		return b
	}
	begin := len(b)
	b = append(b, packed)
	for rest := head; rest != ""; {
		line, after, whole := rest, "", false
		if i := strings.IndexByte(rest, '\r'); i >= 0 && i+1 < len(rest) && rest[i+1] == '\n' {
			line, after, whole = rest[:i], rest[i+2:], true
		}
		for i, word := range words {
			if line != "" && word[0] == line[0] && strings.HasPrefix(line, word) {
				b = append(b, byte(firstWord+i))
				line = line[len(word):]
				break
			}
		}
		if code, second := f.code(line); code != 0 {
			if b = append(b, code); code >= theUnix {
				b = append(b, second)
			}
		} else if !printable(line) {
			return append(append(b[:begin], plain), head...)
		} else {
			b = append(b, line...)
		}
		if whole {
			b = append(b, lineEnd)
		}
		rest = after
	}
	return b
}

// code is what a value follows from, 0 if it does not.
func (f *Facts) code(value string) (code, second byte) {
	switch {
	case value == "":
	case value == f.Event:
		return theEvent, 0
	case value == f.Delivery:
		return theID, 0
	case len(value) < 4 && value == strconv.Itoa(f.Attempt):
		return theNumber, 0
	case len(value) == 10 && value[0] != '0':
		unix, err := strconv.ParseInt(value, 10, 64)
		if d := unix - f.Started.Unix(); err == nil && value[0] != '+' && -near <= d && d <= near {
			return theUnix, byte(0x50 + d)
		}
	case len(value) == len(dateFormat) && value[len(value)-4:] == " GMT":
		return f.date(value)
	}
	return 0, 0
}

const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT" // RFC 9110 section 5.6.7

// date is code for an HTTP date. It looks at the seconds first, because few dates are near.
func (f *Facts) date(value string) (code, second byte) {
	tens, ones := value[23]-'0', value[24]-'0'
	if tens > 5 || ones > 9 {
		return 0, 0
	}
	start := f.Started.UTC()
	d := int(tens)*10 + int(ones) - start.Second()
	switch {
	case d < -30:
		d += 60
	case d > 30:
		d -= 60
	}
	var text [len(dateFormat)]byte
	if string(start.Add(time.Duration(d)*time.Second).AppendFormat(text[:0], dateFormat)) != value {
		return 0, 0
	}
	return theDate, byte(0x50 + d)
}

func printable(line string) bool {
	for i := range len(line) {
		if line[i] < 0x20 {
			return false
		}
	}
	return true
}

// Unpack returns the head that Pack was given with the same Facts. Codes that are not known are left out.
func (f *Facts) Unpack(kept string) string {
	switch {
	case kept == "":
		return ""
	case kept[0] == plain:
		return kept[1:]
	case kept[0] != packed:
		return kept
	}
	b := make([]byte, 0, 4*len(kept)+100)
	for i := 1; i < len(kept); i++ {
		switch c := kept[i]; {
		case c >= 0x20:
			b = append(b, c)
		case c == lineEnd:
			b = append(b, "\r\n"...)
		case c == theEvent:
			b = append(b, f.Event...)
		case c == theID:
			b = append(b, f.Delivery...)
		case c == theNumber:
			b = strconv.AppendInt(b, int64(f.Attempt), 10)
		case (c == theUnix || c == theDate) && i+1 < len(kept):
			i++
			at := f.Started.UTC().Add(time.Duration(int(kept[i])-0x50) * time.Second)
			if c == theUnix {
				b = strconv.AppendInt(b, at.Unix(), 10)
			} else {
				b = at.AppendFormat(b, dateFormat)
			}
		case c >= firstWord && int(c-firstWord) < len(words):
			b = append(b, words[c-firstWord]...)
		}
	}
	return string(b)
}
