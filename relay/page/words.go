package page

import "html/template"

// words are the texts for a viewer: in a language, and in words for the customer of a platform where the session is bound to
// tenants or endpoints. A key with the suffix your has what such a viewer reads instead.
type words struct {
	all  *catalogue
	lang string
	your bool
}

const yours = ".your" // behind the key of a text for a session that is bound

func (w words) key(key string) string {
	if w.your && w.all.has(key+yours) {
		return key + yours
	}
	return key
}

func (w words) has(key string) bool { return w.all.has(key) }

func (w words) text(key string, args ...any) string { return w.all.text(w.lang, w.key(key), args...) }

// advice is what to do about a refusal of the API, where its code, or its code and the field, leave no question open; "" for others,
// of which the API's own words are shown.
func (w words) advice(code, field string) string {
	for _, key := range []string{"advice." + code + "." + field, "advice." + code} {
		if w.has(key) {
			return w.text(key)
		}
	}
	return ""
}

func (w words) html(key string, args ...any) template.HTML {
	return w.all.html(w.lang, w.key(key), args...)
}

func (w words) count(key string, n int64, shown string) string {
	return w.all.count(w.lang, w.key(key), n, shown)
}

// words are the texts for who makes the request.
func (c *call) words() words { return words{c.p.texts, c.lang, !c.whole()} }
