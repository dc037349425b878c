// Package packed unpacks files that are part of the binary. They are compressed there: templates, texts and scripts come to a
// quarter of their size. `make pack` writes the archives from the folders, and a test of each package that has one compares them.
package packed

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
)

// Text unpacks one text (gzip, RFC 1952). It panics if it is broken: it is part of the binary, and a test reads it.
func Text(archive []byte) []byte {
	from, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		panic("packed: " + err.Error())
	}
	text, err := io.ReadAll(from)
	if err != nil {
		panic("packed: " + err.Error())
	}
	return text
}

// Files unpacks the files of a folder, by their paths within it. Their archive is the Text of a JSON object. It panics as Text does.
func Files(archive []byte) map[string]string {
	var files map[string]string
	if err := json.Unmarshal(Text(archive), &files); err != nil {
		panic("packed: " + err.Error())
	}
	return files
}
