package golden

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/internal/packed"
)

// Packed compares an archive of packed.Files, which is beside a folder with its name and .gz, with the folder.
func Packed(t testing.TB, folder string) {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path) // it is below
		files[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", folder, len(files), err)
	}
	if *update {
		var text bytes.Buffer
		to := json.NewEncoder(&text)
		to.SetEscapeHTML(false) // it makes the archive smaller
		if err := to.Encode(files); err != nil {
			t.Fatal(err)
		}
		Pack(t, folder+".gz", text.Bytes())
	}
	archive, err := os.ReadFile(folder + ".gz")
	if err != nil || !cmp.Equal(files, packed.Files(archive)) {
		t.Errorf("%s.gz is not what is in %s (%v): run make pack", folder, folder, err)
	}
}

// Pack writes a text as packed.Text reads it.
func Pack(t testing.TB, path string, text []byte) {
	t.Helper()
	var small bytes.Buffer
	to, _ := gzip.NewWriterLevel(&small, gzip.BestCompression) // the only error is a level that there is not
	_, _ = to.Write(text)                                      // a buffer takes all
	_ = to.Close()
	if err := os.WriteFile(path, small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
