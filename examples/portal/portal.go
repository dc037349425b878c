// An app whose customers look after webhook endpoints of their own. What they ask for below
// /webhooks/ goes to Relay with a token that Relay bound to the customer, so the app checks no
// endpoint, no delivery and no id. See README.md beside it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// link is what Relay answers to POST /v1/links.
type link struct {
	Token   string
	Expires time.Time
}

type portal struct {
	relay *url.URL // of Relay's admin listener
	token string   // of that listener

	mu    sync.Mutex
	links map[string]link // by customer
}

// handler lets a customer use Relay's API; customer tells who is logged in, "" for nobody.
func (p *portal) handler(customer func(*http.Request) string) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tenant := customer(r)
		if tenant == "" {
			w.Header().Set("WWW-Authenticate", "Basic")
			http.Error(w, "log in", http.StatusUnauthorized)
			return
		}
		l, err := p.link(r.Context(), tenant)
		if err != nil {
			log.Print(err)
			http.Error(w, "try again later", http.StatusBadGateway)
			return
		}
		proxy := httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(p.relay)
			// No cookie of the customer reaches Relay.
			r.Out.Header = http.Header{"Authorization": {"Bearer " + l.Token}, "Content-Type": r.In.Header["Content-Type"], "If-Match": r.In.Header["If-Match"]}
		}}
		proxy.ServeHTTP(w, r)
	}))
}

// link is a token for one customer. It is kept until it is nearly over, because Relay writes each
// one into its audit.
func (p *portal) link(ctx context.Context, tenant string) (link, error) {
	p.mu.Lock()
	l := p.links[tenant]
	p.mu.Unlock()
	if time.Until(l.Expires) > time.Minute {
		return l, nil
	}
	ask, err := json.Marshal(map[string]any{"tenant": tenant, "may": []string{"read", "payload", "secrets", "test", "redeliver", "endpoints"}, "ttl": "1h"})
	if err != nil {
		return l, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.relay.JoinPath("/v1/links").String(), bytes.NewReader(ask))
	if err != nil {
		return l, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return l, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return l, fmt.Errorf("relay answered %s to POST /v1/links", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		return l, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[tenant] = l
	return l, nil
}

// basic takes the place of the app's own login: $CUSTOMERS is "name:password name:password".
func basic(customers string) func(*http.Request) string {
	return func(r *http.Request) string {
		name, password, _ := r.BasicAuth()
		for _, c := range strings.Fields(customers) {
			if c == name+":"+password {
				return name
			}
		}
		return ""
	}
}

func main() {
	relay, err := url.Parse(os.Getenv("RELAY_ADMIN"))
	if err != nil || relay.Host == "" || len(os.Args) != 2 {
		log.Fatal("usage: RELAY_ADMIN=http://127.0.0.1:7071 RELAY_ADMIN_TOKEN=… CUSTOMERS=acme:password portal 127.0.0.1:8080")
	}
	p := &portal{relay: relay, token: os.Getenv("RELAY_ADMIN_TOKEN"), links: map[string]link{}}
	http.Handle("/webhooks/", http.StripPrefix("/webhooks", p.handler(basic(os.Getenv("CUSTOMERS")))))
	ln, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", ln.Addr())
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.Serve(ln))
}
