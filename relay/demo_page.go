package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"relay/relay/admin"
	"relay/relay/app"
	"relay/relay/client"
)

// demoPageConfig is the file of "relay demo --page". Names in <> are replaced.
const demoPageConfig = `# The whole configuration of this demo. "relay check FILE" explains it.
secrets_key = ["<seal>"]              # seals secrets of endpoints made at run time
ingest {
  unix "<socket>" {}
  index = ["data.customer", "data.device"]
}
admin {
  http     = "127.0.0.1:0"
  token    = "<token>"
  link_key = ["<link key>"]
  access "support" {
    token = "<support>"
    may   = ["read", "payload", "redeliver"]
  }
}
outbox "sqlite" {
  path = "<outbox>"
}
log {
  level = "error"
}

event_type "order.created" {
  description = "A customer placed an order"
  schema = jsonencode({
    type       = "object"
    required   = ["order", "customer", "amount", "currency"]
    properties = {
      order    = { type = "string", description = "number of the order" }
      customer = { type = "string" }
      amount   = { type = "integer", description = "in cents" }
      currency = { type = "string", enum = ["EUR", "TWD", "USD"] }
      lines    = { type = "array", items = { type = "object", required = ["sku", "quantity"] } }
    }
  })
  example = jsonencode({ order = "SO-10412", customer = "c-17", amount = 12900, currency = "EUR", lines = [{ sku = "NUT-M8", quantity = 200 }] })
}
event_type "order.paid" {
  description = "The payment of an order arrived"
  schema  = jsonencode({ type = "object", required = ["order", "amount"], properties = { order = { type = "string" }, amount = { type = "integer", description = "in cents" } } })
  example = jsonencode({ order = "SO-10412", amount = 12900, currency = "EUR", customer = "c-17" })
}
event_type "order.shipped" {
  description = "An order left the warehouse"
}
event_type "invoice.created" {
  description = "An invoice was written"
  example = jsonencode({ invoice = "IN-2204", order = "SO-10412", due = "2026-12-31" })
}
event_type "invoice.paid" {
  description = "An invoice was paid in full"
}
event_type "device.reading" {
  description = "A device reports what it measures"
  schema  = jsonencode({ type = "object", required = ["device", "celsius"], properties = { device = { type = "string" }, celsius = { type = "number" }, battery = { type = "integer", minimum = 0, maximum = 100 } } })
  example = jsonencode({ device = "cam-7", celsius = 21.5, battery = 88 })
}
event_type "device.offline" {
  description = "A device was not heard of for five minutes"
}

policy "default" {
  retry {
    schedule = ["2s", "4s", "8s", "15s", "30s", "1m"]
  }
  breaker {                           # opens and closes fast, so that it is seen
    window       = "20s"
    min_attempts = 8
    open         = "5s"
    max_open     = "10s"
  }
  egress {                            # the receivers of the demo are on this machine
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}
policy "customer" {
  concurrency = 4
}
runtime {
  policies  = ["customer"]
  overrides = ["timeout", "rate_limit"]
}

endpoint "storefront" {               # healthy
  description = "Order status in the shop"
  labels      = { team = "shop" }
  url         = "http://<receiver>/storefront"
  events      = ["order.*", "invoice.*"]
  secrets     = ["<secret>"]
}
endpoint "warehouse" {                # fails and recovers in turns
  description = "Picking lists"
  labels      = { team = "logistics" }
  url         = "http://<receiver>/warehouse"
  events      = ["order.paid", "order.shipped"]
  secrets     = ["<secret>"]
}
endpoint "crm" {                      # refuses one customer for good
  description = "Customer records"
  labels      = { team = "sales" }
  url         = "http://<receiver>/crm"
  events      = ["order.created", "invoice.*"]
  secrets     = ["<secret>"]
}
endpoint "analytics" {                # slow
  description = "Data warehouse"
  labels      = { team = "data" }
  url         = "http://<receiver>/analytics"
  events      = ["order.created", "device.*"]
  secrets     = ["<secret>"]
  concurrency = 4
}
endpoint "newsletter" {               # paused
  description = "Mail after a purchase"
  labels      = { team = "marketing" }
  url         = "http://<receiver>/newsletter"
  events      = ["order.shipped"]
  secrets     = ["<secret>"]
}
endpoint "on-call" {
  description = "The pager"
  labels      = { team = "logistics" }
  url         = "http://<receiver>/on-call"
  events      = ["relay.alert.*"]
  secrets     = ["<secret>"]
}

alert "warehouse-fails" {
  on        = "success_rate"
  below     = 0.9
  window    = "1m"
  min       = 5
  for       = "0s"
  cooldown  = "10s"
  endpoints = ["warehouse"]
}
alert "slow-analytics" {
  on        = "mean"
  above     = "800ms"
  window    = "1m"
  min       = 5
  for       = "0s"
  endpoints = ["analytics"]
}
`

// demoTenants are the customers whose endpoints are made at run time.
func demoTenants() []string { return []string{"acme", "globex"} }

// pageDemo is one run of "relay demo --page".
type pageDemo struct {
	*command
	length time.Duration // from the introduction on; 0 = until a signal

	dir, file, socket string
	token             string // of the operator
	receiver          string // its address
	url               string // of the admin listener, once it is open
	once              *admin.OneTime
}

func (d *pageDemo) run() (err error) {
	ctx, cancel := untilSignal(func(os.Signal) error { return context.Canceled }, nil)
	defer cancel()
	if d.dir, err = os.MkdirTemp("", "relay-demo-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open receivers: %w", err)
	}
	d.receiver = ln.Addr().String()
	stopReceivers := serveReceivers(ctx, ln)
	defer stopReceivers()
	if err := d.write(); err != nil {
		return err
	}
	return d.relay(ctx)
}

// write writes the configuration, with secrets that nobody else has.
func (d *pageDemo) write() error {
	d.file, d.socket, d.token = filepath.Join(d.dir, "relay.hcl"), filepath.Join(d.dir, "relay.sock"), "demo-"+randomHex()
	text := strings.NewReplacer(
		"<seal>", randomHex(), "<link key>", randomHex(), "<support>", "support-"+randomHex(), "<token>", d.token,
		"<socket>", d.socket, "<outbox>", filepath.Join(d.dir, "outbox"), "<receiver>", d.receiver, "<secret>", randomSecret(),
	).Replace(demoPageConfig)
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

func randomHex() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// relay runs Relay and the story until ctx ends.
func (d *pageDemo) relay(ctx context.Context) error {
	file, p, err := d.load([]string{d.file})
	if err != nil {
		return err
	}
	d.once = admin.NewOneTime(func() {
		fmt.Fprintf(d.out, "The link was used. The next one, for another browser:\n\n  %s\n\n", d.link())
	})
	lines := app.NewLines(d.err)
	defer lines.Flush(lastLines)
	a, err := app.Open(ctx, app.Options{
		Config: file.Config, File: file, Policy: p, Version: version, Grace: time.Second, Load: d.again([]string{d.file}, file), OneTime: d.once,
		Log: app.NewLogger(file.Config.Log, lines), LogDropped: lines.Dropped,
	})
	if err != nil {
		return err
	}
	d.url = "http://" + a.Addrs("admin")[0].String()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var story sync.WaitGroup
	var failed error
	story.Go(func() {
		failed = d.tell(ctx)
		stop()
	})
	err = a.Run(ctx)
	story.Wait()
	return errors.Join(err, failed)
}

// tell prepares the run-time part, says where the page is, and sends events until ctx ends or as long as it was told.
func (d *pageDemo) tell(ctx context.Context) error {
	to := client.At("unix", d.socket)
	for !answers(to) {
		if !wait(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	links, err := d.prepare()
	if ctx.Err() != nil {
		return nil // it was stopped meanwhile
	}
	if err != nil {
		return err
	}
	d.introduce(links)
	if d.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	sendStory(ctx, to)
	return nil
}

// answers tells whether Relay takes requests.
func answers(to client.Target) bool {
	_, _, err := to.Do(client.Request{Method: http.MethodGet, Path: "/v1/events"}) // refused, as there is only POST
	return err == nil
}

// prepare pauses an endpoint, and makes one for each tenant, with a link to its page.
func (d *pageDemo) prepare() (links []string, err error) {
	if err := d.ask("/v1/endpoints/newsletter/pause", nil, nil); err != nil {
		return nil, err
	}
	for _, tenant := range demoTenants() {
		made := map[string]any{
			"name": tenant + "-erp", "url": "http://" + d.receiver + "/" + tenant, "tenants": []string{tenant},
			"description": "Made at run time by the customer " + tenant, "labels": map[string]string{"team": tenant},
		}
		if err := d.ask("/v1/endpoints", made, nil); err != nil {
			return nil, err
		}
		var link struct{ Token string }
		rights := map[string]any{"tenant": tenant, "may": []string{"read", "payload", "secrets", "test", "redeliver", "endpoints"}, "ttl": "1d"}
		if err := d.ask("/v1/links", rights, &link); err != nil {
			return nil, err
		}
		links = append(links, d.url+"/enter/"+link.Token)
	}
	return links, nil
}

// ask posts to the admin API, and decodes its answer.
func (d *pageDemo) ask(path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	if body == nil {
		text = nil
	}
	to := client.At("tcp", strings.TrimPrefix(d.url, "http://"))
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + d.token}}
	code, answer, err := to.Do(client.Request{Method: http.MethodPost, Path: path, Header: header, Body: text})
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	if code >= 300 {
		return fmt.Errorf("ask %s: %d %s", path, code, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	return nil
}

// link makes a link that logs in once as the operator.
func (d *pageDemo) link() string { return d.url + "/enter/" + d.once.Make(d.token) }

func (d *pageDemo) introduce(links []string) {
	fmt.Fprintf(d.out, `The page of a Relay with a shop, its receivers and two customers. This link logs in once:

  %s

The endpoint "warehouse" fails and recovers in turns, "analytics" is slow, "newsletter" is paused and
"crm" refuses one customer. Alerts go to "on-call". Customers see only what is theirs, by links that hold
for a day:

`, d.link())
	for i, tenant := range demoTenants() {
		fmt.Fprintf(d.out, "  %-7s %s\n", tenant, links[i])
	}
	fmt.Fprintf(d.out, `
  configuration  %s
  your own event, from another terminal:
    curl --unix-socket %s http://localhost/v1/events \
      -H 'Content-Type: application/json' -d '{"type":"order.created","data":{"order":"mine","customer":"c-1","amount":1,"currency":"EUR"}}'

`, d.file, d.socket)
	if d.length == 0 {
		fmt.Fprintln(d.out, "Ctrl-C ends it, and removes all.")
	}
}
