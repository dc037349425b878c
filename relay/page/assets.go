package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"path"
	"strings"
)

//go:embed assets
var assetFiles embed.FS

// assets are the style sheet, the module and the icon.
type assets struct {
	bodies map[string][]byte
	types  map[string]string
}

// readAssets reads them; style sheets are served as one. It panics if a file cannot be read: they are part of the
// binary.
func readAssets() *assets {
	a := &assets{bodies: map[string][]byte{}, types: map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	}}
	files, err := fs.Glob(assetFiles, "assets/*")
	if err != nil {
		panic("page: assets: " + err.Error())
	}
	for _, name := range files {
		body, err := assetFiles.ReadFile(name)
		if err != nil {
			panic("page: assets: " + err.Error())
		}
		key := path.Base(name)
		if strings.HasSuffix(key, ".css") {
			key = "page.css"
		}
		a.bodies[key] = append(a.bodies[key], body...)
	}
	return a
}

// style is the style sheet with the accent colour of the file.
func (p *Page) style() []byte {
	body := p.assets.bodies["page.css"]
	if accent := p.Look().Accent; accent != "" {
		body = append(bytes.Clone(body), accentStyle(accent)...)
	}
	return body
}

func (p *Page) assetBody(name string) []byte {
	if name == "page.css" {
		return p.style()
	}
	return p.assets.bodies[name]
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
	h.Set("Content-Type", p.assets.types[name])
	if c.r.URL.Query().Get("v") == p.version(name) {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = c.w.Write(body) // the client has gone
	return nil
}
