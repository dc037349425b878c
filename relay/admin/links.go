package admin

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"relay/config"
	"relay/ingest/problem"
	"relay/policy"
	"relay/relay/audit"
)

// Links makes and reads tokens for one tenant that end by themselves. They are signed (HMAC with
// SHA-256, RFC 2104), not stored; taking their key out of the file revokes them all.
type Links struct {
	Keys    []string // link_key: the first one signs, all verify; none: there are no links
	Revoked *Revoked // those that were taken back one by one; nil for none
}

// LinkRequest asks for a link.
type LinkRequest struct {
	Tenant string   `json:"tenant"`
	May    []string `json:"may,omitempty"` // rights: read, payload, secrets, test, redeliver, endpoints; read by default
	For    string   `json:"for,omitempty"` // who gets it, for the audit: 1 to 100 printable characters; it can be read in the token
	TTL    string   `json:"ttl,omitempty"` // how long it holds, 1m to 30d; 1h by default
}

// Link is access for one tenant.
type Link struct {
	ID      string    `json:"id"`    // by which it can be taken back; it opens nothing
	Token   string    `json:"token"` // a bearer token of these routes
	Path    string    `json:"path"`  // on a listener that has the page: who opens it is logged in
	Tenant  string    `json:"tenant"`
	For     string    `json:"for,omitempty"`
	May     []string  `json:"may"`
	Warning string    `json:"warning,omitempty"` // the link shows nothing so far
	Expires time.Time `json:"expires"`
}

// claims are what a token says.
type claims struct {
	ID      string  `json:"i,omitempty"` // of those of earlier versions: ""
	Tenant  string  `json:"t"`
	For     string  `json:"f,omitempty"`
	May     []Right `json:"m"`
	Made    int64   `json:"b,omitempty"` // milliseconds since 1970, by the outbox's clock; of those of earlier versions: 0
	Expires int64   `json:"e"`           // seconds since 1970, by the clock of the Relay that made it
}

// LinkPrefix begins each token of a link.
const LinkPrefix = "relay_link_"

const linkBody = 4 << 10

// Sign makes the token of claims.
func (l Links) sign(c claims) string {
	text, err := json.Marshal(c)
	if err != nil {
		panic("admin: claims cannot be written: " + err.Error()) // texts and numbers always can
	}
	return LinkPrefix + base64.RawURLEncoding.EncodeToString(text) + "." + base64.RawURLEncoding.EncodeToString(mac(l.Keys[0], text))
}

func mac(key string, text []byte) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte("relay link "))
	h.Write(text)
	return h.Sum(nil)
}

// Access is the access of a token, nil if it is none, forged, or over.
func (l Links) Access(token string, now time.Time) *Access {
	c, signed, whole := l.read(token)
	if !whole || !signed || now.Unix() >= c.Expires || l.Revoked.end(&c) != LinkHolds {
		return nil
	}
	return &Access{Name: "link of " + c.Tenant, May: c.May, Tenants: []string{c.Tenant}, For: c.For, Expires: time.Unix(c.Expires, 0).UTC()}
}

// read reads a token: what it says, and whether a key signed that. whole is false if it is none, or cut.
func (l Links) read(token string) (c claims, signed, whole bool) {
	text, sum, ok := linkParts(token)
	if !ok || len(sum) != sha256.Size {
		return c, false, false
	}
	signed = slices.ContainsFunc(l.Keys, func(key string) bool { return hmac.Equal(sum, mac(key, text)) })
	whole = json.NewDecoder(bytes.NewReader(text)).Decode(&c) == nil && c.Tenant != ""
	return c, signed, whole
}

func (a *api) linkRoutes() []route {
	return []route{{
		id: "createLink", method: "POST", path: "/v1/links", verb: "relay links", summary: "Make a token for one tenant that ends by itself",
		about: "A platform hands it to its customer. It sees the tenant's endpoints and deliveries alone. Its id takes it back; another link_key takes all back.",
		body:  LinkRequest{}, status: http.StatusCreated, answer: Link{},
		codes:  []problem.Code{problem.NoLinkKey, problem.InvalidParameter, problem.UnknownParameter, problem.InvalidJSON, problem.InvalidBody, problem.BodyTooLarge},
		handle: a.createLink,
	}, {
		id: "revokeLink", method: "DELETE", path: "/v1/links/{id}", verb: "relay links revoke ID", summary: "Take one link back",
		about:  "It ends here at once, and at all Relays of the outbox within a second, with sessions and streams that began with it. Links are stored nowhere, so an id that no link has is taken, too.",
		answer: LinksRevoked{}, codes: []problem.Code{problem.InvalidParameter, problem.UnknownParameter}, handle: a.revokeLink,
	}, {
		id: "revokeLinks", method: "DELETE", path: "/v1/links", verb: "relay links revoke --tenant TENANT", summary: "Take all links of a tenant back",
		about: "Those that were made until now, or of them those that were made for somebody. Later ones hold.",
		params: []param{
			{"tenant", "whose links; needed", "acme"}, {"for", "who they were made for, in the same words; all of the tenant by default", "Ann, ticket 17"},
		},
		answer: LinksRevoked{}, codes: []problem.Code{problem.InvalidParameter, problem.UnknownParameter}, handle: a.revokeLinks,
	}}
}

// LinksRevoked is what was taken back.
type LinksRevoked struct {
	ID     string    `json:"id,omitempty"`     // of one link
	Tenant string    `json:"tenant,omitempty"` // of all its links
	For    string    `json:"for,omitempty"`    // who those of the tenant were made for
	Ends   time.Time `json:"ends"`             // when the last of them would have ended by itself: then Relay forgets it
}

// linkID is the form of an id.
var linkID = regexp.MustCompile(`^[A-Z2-7]{16}$`)

// IDOfLink is the id in a token, "" for none. Nobody has checked whether a key signed it.
func IDOfLink(token string) string {
	text, _, ok := linkParts(token)
	var c claims
	if !ok || json.Unmarshal(text, &c) != nil || !linkID.MatchString(c.ID) {
		return ""
	}
	return c.ID
}

func (a *api) revokeLink(w http.ResponseWriter, r *http.Request) {
	if err := knownParameters(r.URL.Query()); err != nil {
		a.refuse(w, r, err)
		return
	}
	id := r.PathValue("id")
	if !linkID.MatchString(id) {
		a.refuse(w, r, refusal(problem.InvalidParameter, "id", "this is no id of a link: 16 capital letters and digits, as the answer to POST /v1/links and the audit have it. Links of earlier versions have none: take back all of the tenant"))
		return
	}
	a.revoke(w, r, which{ID: id}, "link "+id)
}

func (a *api) revokeLinks(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	of := which{Tenant: q.Get("tenant"), For: q.Get("for")}
	err := knownParameters(q, "tenant", "for")
	if err == nil && (of.Tenant == "" || policy.ValidLabel(of.Tenant) != nil) {
		err = refusal(problem.InvalidParameter, "tenant", "tenant is the tenant whose links are taken back, and is needed")
	}
	if err == nil && q.Has("for") {
		err = validFor(of.For)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	a.revoke(w, r, of, "tenant "+of.Tenant)
}

// knownParameters refuses parameters that are not among names, or stand twice.
func knownParameters(q url.Values, names ...string) error {
	for name, values := range q {
		switch {
		case len(names) == 0:
			return refusal(problem.UnknownParameter, name, "there are no parameters here")
		case !slices.Contains(names, name):
			return refusal(problem.UnknownParameter, name, "there is no parameter "+shorten(name)+" here. There are "+strings.Join(names, " and "))
		case len(values) != 1:
			return refusal(problem.InvalidParameter, name, name+" may be given once")
		}
	}
	return nil
}

func (a *api) revoke(w http.ResponseWriter, r *http.Request, of which, what string) {
	revoked := a.revoked()
	if revoked == nil {
		a.refuse(w, r, refusal(problem.NoLinkKey, "", "there are no links: the file has no link_key"))
		return
	}
	ctx, cancel := changing(r)
	defer cancel()
	ends, err := revoked.revoke(ctx, of, a.now())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	a.audited(r, audit.Entry{Verb: "link revoke", What: what, After: audit.State(struct {
		For string `json:"for,omitempty"`
	}{of.For})})
	answer(w, http.StatusOK, LinksRevoked{ID: of.ID, Tenant: of.Tenant, For: of.For, Ends: ends.UTC()})
}

// revoked is nil where there are no links.
func (a *api) revoked() *Revoked {
	if a.Links == nil || len(a.Links().Keys) == 0 {
		return nil
	}
	return a.Links().Revoked
}

// validFor refuses what cannot say who gets a link.
func validFor(text string) error {
	if n := utf8.RuneCountInString(text); n < 1 || n > 100 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return refusal(problem.InvalidParameter, "for", "for is who gets the link: 1 to 100 printable characters")
	}
	return nil
}

func (a *api) createLink(w http.ResponseWriter, r *http.Request) {
	link, err := a.link(w, r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusCreated, link)
}

func (a *api) link(w http.ResponseWriter, r *http.Request) (*Link, error) {
	if a.Links == nil || len(a.Links().Keys) == 0 {
		return nil, refusal(problem.NoLinkKey, "", `links are signed: set admin { link_key = [env("RELAY_LINK_KEY")] }, and reload`)
	}
	members, err := readObject(w, r, linkBody, "tenant", "may", "for", "ttl")
	if err != nil {
		return nil, err
	}
	c := claims{}
	if c.Tenant, err = textOf(members, "tenant"); err != nil {
		return nil, err
	}
	if err := policy.ValidLabel(c.Tenant); c.Tenant == "" || err != nil {
		return nil, refusal(problem.InvalidParameter, "tenant", "tenant is the tenant of events, and is needed")
	}
	if c.May, err = rightsIn(members["may"]); err != nil {
		return nil, err
	}
	for _, right := range c.May {
		if !AccessOf(r.Context()).Has(right) {
			return nil, refusal(problem.Forbidden, "may", fmt.Sprintf("this token has no right %q, so it can give none", right))
		}
	}
	if slices.Contains(c.May, Payload) && !slices.Contains(c.May, Read) {
		return nil, refusal(problem.InvalidParameter, "may", "payload alone shows nothing, because it is about what read shows: give read, too")
	}
	if _, given := members["for"]; given {
		if c.For, err = textOf(members, "for"); err != nil {
			return nil, err
		}
		if err := validFor(c.For); err != nil {
			return nil, err
		}
	}
	ttl := time.Hour
	text, err := textOf(members, "ttl")
	if err == nil && text != "" {
		if ttl, err = config.DurationBetween(text, time.Minute, longestLink); err != nil {
			err = refusal(problem.InvalidParameter, "ttl", "ttl: "+err.Error())
		}
	}
	if err != nil {
		return nil, err
	}
	c.ID, c.Made = rand.Text()[:16], a.now().UnixMilli()
	until := time.Now().Add(ttl).Truncate(time.Second)
	c.Expires = until.Unix()
	token := a.Links().sign(c)
	link := &Link{ID: c.ID, Token: token, Path: "/enter/" + token, Tenant: c.Tenant, For: c.For, Expires: until.UTC()}
	for _, right := range c.May {
		link.May = append(link.May, string(right))
	}
	a.audited(r, audit.Entry{Verb: "link", What: "tenant " + c.Tenant, After: audit.State(struct {
		ID      string    `json:"id"`
		May     []string  `json:"may"`
		For     string    `json:"for,omitempty"`
		Expires time.Time `json:"expires"`
	}{link.ID, link.May, link.For, link.Expires})})
	if of := (&Access{Tenants: []string{c.Tenant}}); len(of.seen(a.Policy())) == 0 {
		link.Warning = fmt.Sprintf("no endpoint is for the tenant %s alone: is the name right?", shorten(c.Tenant))
	}
	return link, nil
}

// rightsIn reads the rights of a link.
func rightsIn(list []byte) ([]Right, error) {
	if list == nil {
		return []Right{Read}, nil
	}
	var rights []Right
	if json.Unmarshal(list, &rights) != nil || len(rights) == 0 {
		return nil, refusal(problem.InvalidParameter, "may", `may is a list of rights: ["read","redeliver"]`)
	}
	for _, right := range rights {
		if right == Operate || !slices.Contains(Rights(), right) {
			return nil, refusal(problem.InvalidParameter, "may", fmt.Sprintf("%s is no right of a link: there are read, payload, secrets, test, redeliver and endpoints", shorten(string(right))))
		}
	}
	return rights, nil
}
