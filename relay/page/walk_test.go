package page_test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"relay/internal/testkit"
)

// TestWalk follows every link and submits every form of the page, from the overview on, as an operator whose Relay may
// be changed: none leads nowhere, and every operation of the API that is for people is done by some screen.
func TestWalk(t *testing.T) {
	r := newRunning(t)
	w := newWalker(t, r)
	w.see("/")
	w.walk()
	r.compareOperations(t)
}

// Sites within a path that stand for any name or id.
var anyName = regexp.MustCompile(`^/(deliveries|events|endpoints|jobs)/([^/]+)`)

// kindOf is a path without names and ids.
func kindOf(path string) string {
	if strings.HasPrefix(path, "/assets/") {
		return "/assets/…"
	}
	if m := anyName.FindStringSubmatch(path); m != nil && m[2] != "bulk" && m[2] != "new" {
		return "/" + m[1] + "/…" + path[len(m[0]):]
	}
	return path
}

// telling are parameters whose values make another screen.
var telling = []string{"state", "action"}

// screenOf is what makes an address another screen than others: path and parameters without most of their values.
func screenOf(u *url.URL) string {
	if u.Query().Has("lang") {
		return "another language"
	}
	var q []string
	for name, values := range u.Query() {
		if slices.Contains(telling, name) {
			name += "=" + strings.Join(values, ",")
		}
		q = append(q, name)
	}
	slices.Sort(q)
	return kindOf(u.Path) + "?" + strings.Join(q, "&")
}

// perScreen bounds visits of addresses that differ in names and values alone. Deliveries look different in each state.
func perScreen(screen string) int {
	if screen == "/deliveries/…?" {
		return 60
	}
	return 6
}

// form is a form of the page with one of its buttons.
type form struct {
	method, action string
	fields         url.Values
	button         string // for people
}

// kind is what makes a form another one: of those about many deliveries, what it does to them.
func (f *form) kind() string {
	if f.action == "/deliveries/bulk" {
		return f.method + " " + f.action + " (" + f.fields.Get("action") + ")"
	}
	names := slices.Sorted(maps.Keys(f.fields))
	return f.method + " " + kindOf(f.action) + " (" + strings.Join(names, " ") + ")"
}

// rank orders forms by how much is gone afterwards: one after another, then many.
func (f *form) rank() int {
	what := f.action[strings.LastIndexByte(f.action, '/')+1:]
	many := 0
	if what == "bulk" {
		what, many = f.fields.Get("action"), 10
	}
	if what == "revoke" && f.fields.Has("tenant") { // after one link alone
		many = 10
	}
	return slices.Index([]string{"cancel", "reload", "pause", "disable", "discard", "erase", "delete", "logout"}, what) + many
}

type walker struct {
	testing.TB
	r       *running
	client  *http.Client
	queue   []string
	visited map[string]int      // by screenOf
	known   map[string]bool     // addresses
	forms   map[string][]string // pages that have a form of a kind, by kind
	ranks   map[string]int
	done    map[string]bool // kinds of forms that were submitted
}

func newWalker(t testing.TB, r *running) *walker {
	jar, err := cookiejar.New(nil)
	testkit.Must(t, err)
	w := &walker{TB: t, r: r, visited: map[string]int{}, known: map[string]bool{}, forms: map[string][]string{}, ranks: map[string]int{}, done: map[string]bool{}}
	w.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	w.post("/login", url.Values{"token": {operator}})
	return w
}

// see plans a visit of an address, unless enough of its kind were seen.
func (w *walker) see(address string) {
	u, err := url.Parse(address)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
		w.Errorf("a link leads away or nowhere: %q", address)
		return
	}
	u.Fragment = ""
	if address = u.String(); !w.known[address] && w.visited[screenOf(u)] < perScreen(screenOf(u)) {
		w.known[address] = true
		w.visited[screenOf(u)]++
		w.queue = append(w.queue, address)
	}
}

// walk visits all addresses and submits a form of each kind, the ones that leave the most to be seen first.
func (w *walker) walk() {
	for {
		for len(w.queue) > 0 {
			next := w.queue[0]
			w.queue = w.queue[1:]
			w.visit(next)
		}
		left := slices.DeleteFunc(slices.Collect(maps.Keys(w.forms)), func(kind string) bool { return w.done[kind] })
		if len(left) == 0 {
			return
		}
		slices.SortFunc(left, func(a, b string) int { return cmp.Or(w.ranks[a]-w.ranks[b], strings.Compare(a, b)) })
		w.submitOne(left[0])
	}
}

// visit gets an address and plans what it links to.
func (w *walker) visit(address string) *html.Node {
	w.Helper()
	resp, err := w.client.Get(w.r.url + address)
	testkit.Must(w, err)
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusSeeOther:
		w.see(w.located(resp))
		return nil
	case resp.StatusCode == http.StatusUnprocessableEntity && kindOf(resp.Request.URL.Path) == "/deliveries/bulk": // none of them can be changed so
	case resp.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(resp.Body)
		w.Errorf("GET %s answers %d: %s", address, resp.StatusCode, problemIn(text))
		return nil
	case !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		_, err := io.Copy(io.Discard, resp.Body) // a file that is not read to its end is made on for a while
		testkit.Must(w, err)
		return nil
	}
	doc, err := html.Parse(resp.Body)
	testkit.Must(w, err)
	w.look(address, doc)
	return doc
}

// located is where an answer goes on to.
func (w *walker) located(resp *http.Response) string {
	u, err := resp.Location()
	if err != nil || !strings.HasPrefix(u.String(), w.r.url) {
		w.Errorf("%s goes on to %v (%v)", resp.Request.URL, u, err)
		return "/"
	}
	return strings.TrimPrefix(u.String(), w.r.url)
}

// look plans what a document links to, and notes its forms.
func (w *walker) look(address string, doc *html.Node) {
	base, _ := url.Parse(address) // it was visited
	for n := range doc.Descendants() {
		for _, name := range []string{"href", "src"} {
			if to, has := attribute(n, name); has {
				u, err := base.Parse(to)
				if err != nil {
					w.Errorf("%s has a link that cannot be read: %q", address, to)
					continue
				}
				w.see(u.String())
			}
		}
		if filter, has := attribute(n, "data-live"); has {
			w.follow("/live?" + filter)
		}
	}
	for _, f := range w.formsOf(base, doc) {
		kind := f.kind()
		if f.method == http.MethodGet {
			w.choose(f, doc)
			continue
		}
		w.ranks[kind] = f.rank()
		if !slices.Contains(w.forms[kind], address) {
			w.forms[kind] = append(w.forms[kind], address)
		}
	}
}

// choose plans a visit of where a form that asks leads to, also with each option of its selects.
func (w *walker) choose(f *form, doc *html.Node) {
	w.see(f.action + "?" + f.fields.Encode())
	for n := range doc.Descendants() {
		name, _ := attribute(n, "name")
		if n.Data != "select" || !f.fields.Has(name) {
			continue
		}
		for o := range n.Descendants() {
			if value, has := attribute(o, "value"); has {
				fields := maps.Clone(f.fields)
				fields.Set(name, value)
				w.see(f.action + "?" + fields.Encode())
			}
		}
	}
}

// follow opens a stream, and leaves.
func (w *walker) follow(address string) {
	resp, err := w.client.Get(w.r.url + address)
	testkit.Must(w, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		w.Errorf("%s answers %d %s", address, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

// submitOne submits a form of this kind, from the first page that still has it and where it is not refused, as after
// what others changed.
func (w *walker) submitOne(kind string) {
	w.done[kind] = true
	var refused []string
	for _, address := range w.forms[kind] {
		doc := w.visit(address)
		if doc == nil {
			continue
		}
		base, _ := url.Parse(address)
		for _, f := range w.formsOf(base, doc) {
			if f.kind() == kind {
				why := w.submit(address, f)
				if why == "" {
					return
				}
				refused = append(refused, why)
				break
			}
		}
	}
	w.Errorf("no page has the form %s any more, of %v; refused: %q", kind, w.forms[kind], refused)
}

// submit submits a form, and says why it was refused, if it was.
func (w *walker) submit(page string, f *form) (why string) {
	w.Helper()
	resp := w.post(f.action, f.fields)
	defer resp.Body.Close()
	what := fmt.Sprintf("%q of %s: %s with %v", f.button, page, f.kind(), f.fields)
	switch resp.StatusCode {
	case http.StatusSeeOther:
		w.see(w.located(resp))
	case http.StatusOK: // shows something once
		doc, err := html.Parse(resp.Body)
		testkit.Must(w, err)
		w.look(page, doc)
	case http.StatusConflict, http.StatusUnprocessableEntity:
		text, _ := io.ReadAll(resp.Body)
		return fmt.Sprintf("%s: %s", what, problemIn(text))
	default:
		text, _ := io.ReadAll(resp.Body)
		w.Errorf("%s answers %d: %s", what, resp.StatusCode, problemIn(text))
	}
	if strings.HasSuffix(f.action, "/logout") {
		w.post("/login", url.Values{"token": {operator}})
	}
	return ""
}

func (w *walker) post(action string, fields url.Values) *http.Response {
	w.Helper()
	resp, err := w.client.PostForm(w.r.url+action, fields)
	testkit.Must(w, err)
	return resp
}

// problemIn is the text of a page's main part.
func problemIn(page []byte) string {
	text := string(page)
	if _, after, ok := strings.Cut(text, "<main"); ok {
		text = after
	}
	return strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, " ")), " ")
}

// formsOf lists the forms of a document, filled in, one for each of their buttons.
func (w *walker) formsOf(base *url.URL, doc *html.Node) (all []*form) {
	for n := range doc.Descendants() {
		method, _ := attribute(n, "method")
		if n.Data != "form" || method == "dialog" {
			continue
		}
		action, has := attribute(n, "action")
		to, err := base.Parse(action)
		if !has || err != nil {
			w.Errorf("%s has a form without a good action: %q", base, action)
			continue
		}
		fields, buttons := w.filled(n, strings.EqualFold(method, http.MethodPost))
		for _, b := range buttons {
			f := &form{method: cmp.Or(strings.ToUpper(method), http.MethodGet), action: to.Path, fields: maps.Clone(fields), button: textOf(b)}
			if name, _ := attribute(b, "name"); name != "" {
				value, _ := attribute(b, "value")
				f.fields.Set(name, value)
			}
			all = append(all, f)
		}
	}
	return all
}

// filled is what a person would send: what is there, and with typed something sensible where nothing is.
func (w *walker) filled(n *html.Node, typed bool) (fields url.Values, buttons []*html.Node) {
	fields = url.Values{}
	words := w.r.typed
	if !typed {
		words = map[string]string{"q": words["q"]}
	}
	for e := range n.Descendants() {
		name, _ := attribute(e, "name")
		kind, _ := attribute(e, "type")
		value, _ := attribute(e, "value")
		switch {
		case e.Data == "button" && kind != "button" && kind != "reset":
			buttons = append(buttons, e)
		case name == "":
		case e.Data == "select":
			fields.Set(name, chosen(e))
		case e.Data == "textarea":
			fields.Set(name, cmp.Or(textOf(e), words[name]))
		case e.Data == "input" && (kind == "checkbox" || kind == "radio"):
			if _, is := attribute(e, "checked"); is || kind == "checkbox" && (name == "may" || name == "force") {
				fields.Add(name, cmp.Or(value, "on"))
			}
		case e.Data == "input":
			fields.Add(name, cmp.Or(value, words[name]))
		}
	}
	if len(buttons) == 0 { // a form that Enter submits
		buttons = append(buttons, &html.Node{})
	}
	return fields, buttons
}

// chosen is the option of a select that is selected, else the first one.
func chosen(n *html.Node) string {
	value, any := "", false
	for o := range n.Descendants() {
		if o.Data != "option" {
			continue
		}
		v, has := attribute(o, "value")
		if !has {
			v = textOf(o)
		}
		if _, is := attribute(o, "selected"); is {
			return v
		}
		if !any {
			value, any = v, true
		}
	}
	return value
}

func attribute(n *html.Node, name string) (value string, has bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.TrimSpace(b.String())
}

// findings keeps what a test would have failed with.
type findings struct {
	testing.TB
	all []string
}

func (f *findings) Errorf(format string, args ...any) {
	f.all = append(f.all, fmt.Sprintf(format, args...))
}

// The walker finds what is wrong with a page.
func TestWalkerFinds(t *testing.T) {
	for body, want := range map[string]bool{
		`<a href="/there">x</a>`:                                  false,
		`<a href="/gone">x</a>`:                                   true,
		`<a href="https://evil.example/">x</a>`:                   true,
		`<form method="post" action="/acts"><button></button>`:    false,
		`<form method="post" action="/broken"><button></button>`:  true,
		`<form method="post" action="/there"><button></button>`:   true, // 405
		`<form method="post"><button></button>`:                   true,
		`<form action="/gone"><input name="q"></form>`:            true,
		`<link rel="stylesheet" href="/assets/gone.css"><p>x</p>`: true,
	} {
		mux := http.NewServeMux()
		page := func(text string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, text)
			}
		}
		mux.HandleFunc("GET /{$}", page(body))
		mux.HandleFunc("GET /there", page("there"))
		mux.HandleFunc("POST /login", page(""))
		mux.HandleFunc("POST /acts", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusSeeOther) })
		mux.HandleFunc("POST /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		srv := httptest.NewServer(mux)
		found := &findings{TB: t}
		w := newWalker(found, &running{url: srv.URL})
		w.see("/")
		w.walk()
		if (len(found.all) > 0) != want {
			t.Errorf("%s: found %q, want something: %v", body, found.all, want)
		}
		srv.Close()
	}
}
