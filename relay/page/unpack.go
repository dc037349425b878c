package page

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"relay/relay/admin"
	"relay/relay/page/show"
)

// maxUnpacked bounds what is unpacked of a body, in bytes: more is not shown anyway, and a receiver chose it.
const maxUnpacked = show.MaxBody + 1

// plainBody is the body of an answer as people read it: without its content coding, which packed names. packed is "" for a
// body that is not compressed, or cannot be unpacked. whole is false where more follows that was not unpacked.
func plainBody(r *admin.Response) (body []byte, packed string, whole bool) {
	raw := []byte(r.Body)
	if r.Encoding == "base64" {
		if decoded, err := base64.StdEncoding.DecodeString(r.Body); err == nil {
			raw = decoded
		}
	}
	coding := ""
	for _, h := range r.Headers {
		if strings.EqualFold(h.Name, "Content-Encoding") {
			coding += "," + strings.ToLower(strings.TrimSpace(h.Value))
		}
	}
	coding = strings.TrimPrefix(coding, ",")
	for _, open := range codings(coding) {
		if text, whole, is := unpack(raw, open, r.Truncated); is {
			return text, coding, whole
		}
	}
	return raw, "", true
}

// codings are the readers to try for a content coding (RFC 9110, section 8.4.1), none for one that is not known.
func codings(coding string) []func(io.Reader) (io.Reader, error) {
	switch coding {
	case "gzip", "x-gzip":
		return []func(io.Reader) (io.Reader, error){func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }}
	case "deflate": // some send it without the frame of zlib
		return []func(io.Reader) (io.Reader, error){
			func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
			func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil },
		}
	}
	return nil
}

// unpack reads at most maxUnpacked bytes, and of a body that was cut here what there is. What ends too soon by itself is taken for
// no compressed body: a text that only claims to be one may begin like one.
func unpack(raw []byte, open func(io.Reader) (io.Reader, error), cut bool) (text []byte, whole, is bool) {
	r, err := open(bytes.NewReader(raw))
	if err != nil {
		return nil, false, false
	}
	text, err = io.ReadAll(io.LimitReader(r, maxUnpacked))
	return text, err == nil && len(text) < maxUnpacked, err == nil || cut && len(text) > 0 && errors.Is(err, io.ErrUnexpectedEOF)
}
