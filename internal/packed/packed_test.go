package packed

import (
	"bytes"
	"compress/gzip"
	"testing"
)

func TestWhatIsBrokenPanics(t *testing.T) {
	pack := func(text string) []byte {
		var out bytes.Buffer
		to := gzip.NewWriter(&out)
		_, err := to.Write([]byte(text))
		if err != nil || to.Close() != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if got := Files(pack(`{"a":"1","b/c":"<2>"}`)); len(got) != 2 || got["a"] != "1" || got["b/c"] != "<2>" {
		t.Errorf("%v", got)
	}
	whole := pack(`{"a":"1"}`)
	for name, archive := range map[string][]byte{"nothing": nil, "cut": whole[:len(whole)-9], "no files": pack("[]"), "no archive": []byte("{}")} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			Files(archive)
		}()
	}
}
