package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the assets
	"encoding/hex"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"relay/internal/packed"
)

//go:embed assets.gz
var assetArchive []byte

// assets are the style sheet, the module and the icon. They are unpacked when the first is asked for.
type assets struct {
	once   sync.Once
	bodies map[string][]byte
}

// body is an asset, nil if there is none of this name. Style sheets are served as one.
func (a *assets) body(name string) []byte {
	a.once.Do(func() {
		a.bodies = map[string][]byte{}
		files := packed.Files(assetArchive)
		for _, file := range slices.Sorted(maps.Keys(files)) {
			key := file
			if strings.HasSuffix(file, ".css") {
				key = "page.css"
			}
			a.bodies[key] = append(a.bodies[key], files[file]...)
		}
	})
	return a.bodies[name]
}

// typeOf is the content type of an asset.
func typeOf(name string) string {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	}
	return "image/svg+xml"
}

// style is the style sheet with the accent colour of the file.
func (p *Page) style() []byte {
	body := p.assets.body("page.css")
	if accent := p.Look().Accent; accent != "" {
		body = append(bytes.Clone(body), accentStyle(accent)...)
	}
	return body
}

func (p *Page) assetBody(name string) []byte {
	if name == "page.css" {
		return p.style()
	}
	return p.assets.body(name)
}

// version is a part of an asset's address that changes with its content, so that browsers may keep it.
func (p *Page) version(name string) string {
	sum := sha256.Sum256(p.assetBody(name))
	return hex.EncodeToString(sum[:6])
}

// asset answers a file.
func (p *Page) asset(c *call) error {
	name := c.r.PathValue("name")
	if c.r.URL.Path == "/favicon.ico" {
		name = "icon.svg"
	}
	body := p.assetBody(name)
	if body == nil {
		return c.lost()
	}
	h := c.w.Header()
	h.Set("Content-Type", typeOf(name))
	if c.r.URL.Query().Get("v") == p.version(name) {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = c.w.Write(body) // the client has gone
	return nil
}
