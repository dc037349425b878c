package page

import (
	"html/template"
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"
)

// Every template can be read in every language.
func TestTemplatesCanBeRead(t *testing.T) {
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	s := &screens{texts: &catalogue{}, now: time.Now, read: map[string]*template.Template{}}
	for _, lang := range languages() {
		for _, file := range files {
			name := strings.TrimSuffix(path.Base(file), ".html")
			if _, err := s.screen(lang, name); err != nil {
				t.Error(err)
			}
		}
	}
}
