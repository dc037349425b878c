package page

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"relay/internal/testkit"
	"relay/relay/admin"
)

// packedBy is a text in a content coding.
func packedBy(t *testing.T, text string, open func(io.Writer) io.WriteCloser) string {
	t.Helper()
	var b bytes.Buffer
	w := open(&b)
	_, err := io.WriteString(w, text)
	testkit.Must(t, err)
	testkit.Must(t, w.Close())
	return b.String()
}

func gzipped(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

// An answer that came compressed is shown as what it says, with the word that it was; what is no such thing as it came.
func TestCompressedAnswers(t *testing.T) {
	const text = `{"error":"no such customer"}`
	deflated := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	raw := func(w io.Writer) io.WriteCloser {
		f, err := flate.NewWriter(w, flate.BestSpeed)
		testkit.Must(t, err)
		return f
	}
	long := strings.Repeat(text, 100)
	cut := packedBy(t, long, gzipped)
	for name, x := range map[string]struct {
		coding, body string
		cut          bool
		want, packed string
	}{
		"gzip":            {"gzip", packedBy(t, text, gzipped), false, text, "gzip"},
		"its old name":    {" X-GZIP", packedBy(t, text, gzipped), false, text, "x-gzip"},
		"deflate":         {"deflate", packedBy(t, text, deflated), false, text, "deflate"},
		"without a frame": {"deflate", packedBy(t, text, raw), false, text, "deflate"},
		"cut":             {"gzip", cut[:len(cut)-12], true, text, "gzip"},
		"no gzip":         {"gzip", "\x00\x01\x02", false, "\x00\x01\x02", ""},
		"says so alone":   {"deflate", `{"code":5}`, false, `{"code":5}`, ""},
		"another":         {"br", "\x00\x01\x02", false, "\x00\x01\x02", ""},
		"none":            {"", text, false, text, ""},
	} {
		r := &admin.Response{Headers: []admin.Header{{Name: "content-encoding", Value: x.coding}}, Body: base64.StdEncoding.EncodeToString([]byte(x.body)), Encoding: "base64", Truncated: x.cut}
		body, packed, _ := plainBody(r)
		if !strings.HasPrefix(string(body), x.want) || packed != x.packed {
			t.Errorf("%s: %q by %q", name, body, packed)
		}
		if b := responseBody("x", r); b.Packed != x.packed || b.Kept != x.cut || x.cut && b.Copy != "" {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

// What a receiver packed is unpacked as far as it is shown, and no further.
func TestCompressedAnswersAreBounded(t *testing.T) {
	bomb := packedBy(t, strings.Repeat("A", 60<<20), gzipped)
	r := &admin.Response{Headers: []admin.Header{{Name: "Content-Encoding", Value: "gzip"}}, Body: base64.StdEncoding.EncodeToString([]byte(bomb)), Encoding: "base64"}
	body, _, whole := plainBody(r)
	if len(body) != maxUnpacked || whole {
		t.Errorf("%d bytes, whole %v", len(body), whole)
	}
	if b := responseBody("x", r); !b.Truncated || b.Copy != "" || len(b.HTML) > 2*maxUnpacked {
		t.Errorf("%d bytes shown, cut %v", len(b.HTML), b.Truncated)
	}
}
