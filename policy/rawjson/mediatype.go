package rawjson

import (
	"mime"
	"strings"
)

// MediaType tells whether a media type, as in Content-Type, is one of JSON's: a subtype json
// or with the suffix +json (RFC 6839 section 3.1). charset is that parameter, "" without.
func MediaType(contentType string) (isJSON bool, charset string) {
	name, params, err := mime.ParseMediaType(contentType)
	_, subtype, _ := strings.Cut(name, "/")
	return err == nil && (subtype == "json" || strings.HasSuffix(subtype, "+json")), params["charset"]
}
