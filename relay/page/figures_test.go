package page_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
	"relay/outbox/sqlite"
	"relay/policy"
	"relay/relay/app"
)

// filled is an outbox with a long history, as a block of a file.
type filled struct {
	engine, block string
	fill          func(t *testing.T, n int)
}

func engines(t *testing.T) []filled {
	dir := filepath.Join(t.TempDir(), "outbox")
	server := redistest.Start(t)
	return []filled{{
		engine: "sqlite", block: fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n durability = \"relaxed\"\n max_size = \"64GiB\"\n}", dir),
		fill: func(t *testing.T, n int) {
			s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Durability: sqlite.Relaxed, MaxSize: 64 << 30})
			testkit.Must(t, err)
			fillHistory(t, s, n)
			testkit.Must(t, s.Close())
		},
	}, {
		engine: "redis", block: fmt.Sprintf("outbox \"redis\" {\n url = %q\n max_size = \"64GiB\"\n}", server.URL()),
		fill: func(t *testing.T, n int) {
			s, err := redisstream.Open(t.Context(), redisstream.Options{URL: server.URL(), Namespace: "relay", Shards: 1, Database: -1, Durability: redisstream.Memory, MaxSize: 64 << 30})
			testkit.Must(t, err)
			fillHistory(t, s, n)
			testkit.Must(t, s.Close())
		},
	}}
}

const (
	figureEndpoints = 50
	figureTypes     = 20
	figureTenants   = 100
)

func figureEndpoint(i int) string { return fmt.Sprintf("endpoint%d", i%figureEndpoints) }

// figureEntry is the i-th event of a history; what it has of everything follows from its number.
func figureEntry(i int) outbox.Entry {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	device := fmt.Sprint("device-", random.IntN(10_000))
	return outbox.Entry{
		Event: outbox.Event{
			ID: fmt.Sprintf("evt_%012d", i), Type: fmt.Sprint("type.", random.IntN(figureTypes)), Tenant: fmt.Sprint("tenant", random.IntN(figureTenants)), Key: fmt.Sprint("key-", i),
			Time: time.Now(), Via: "http", Data: fmt.Appendf(nil, `{"device":%q,"text":"%0200d"}`, device, i), Fields: []outbox.Field{{Path: "data.device", Value: device}},
		},
		Endpoints: []string{figureEndpoint(random.IntN(figureEndpoints))},
	}
}

// figureSettlement fails each twentieth.
func figureSettlement(c outbox.Claim) outbox.Settlement {
	a := outbox.Attempt{
		N: 1, Started: time.Now(), Took: 3 * time.Millisecond, Status: 200, Outcome: "delivered", Peer: "10.0.0.1:443", Relay: "relay-1", Generation: 1, Timing: outbox.Timing{FirstByte: 2 * time.Millisecond},
		Request: "POST https://example.com/hook\r\nContent-Type: application/json\r\n", Head: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Body: []byte("ok"),
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(c.EventID, "evt_")); err == nil && n%20 == 7 {
		a.Status, a.Outcome, a.Code, a.Error = 410, "gone", "http_410", "receiver answered 410"
		return outbox.Settlement{State: outbox.Failed, Attempt: a}
	}
	return outbox.Settlement{State: outbox.Delivered, Attempt: a}
}

// fillHistory accepts and settles n deliveries.
func fillHistory(t *testing.T, s outbox.Store, n int) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var settled atomic.Int64
	all := make(chan struct{})
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	for e := range figureEndpoints {
		workers.Go(func() {
			for {
				claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: figureEndpoint(e), Max: 64, Lease: time.Hour})
				if err != nil {
					return
				}
				for _, c := range claims {
					if err := s.Settle(ctx, c, figureSettlement(c)); err != nil {
						t.Error(err)
						cancel()
						return
					}
				}
				if settled.Add(int64(len(claims))) == int64(n) {
					close(all)
				}
			}
		})
	}
	for i := 0; i < n; i += 500 {
		var b outbox.Batch
		for j := i; j < min(i+500, n); j++ {
			b.Entries = append(b.Entries, figureEntry(j))
		}
		_, err := s.Accept(t.Context(), b)
		testkit.Must(t, err)
	}
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("%d of %d deliveries are settled", settled.Load(), n)
	}
	t.Logf("%d deliveries in %s", n, time.Since(began).Round(time.Second))
}

// figured is a Relay with a page, in this process.
type figured struct {
	*testing.T
	url, socket string
}

// startFigured opens a Relay whose endpoints are at a receiver.
func startFigured(t *testing.T, block, receiver string) *figured {
	t.Helper()
	dir := testkit.Dir(t)
	f := &figured{T: t, socket: filepath.Join(dir, "relay.sock")}
	var text strings.Builder
	fmt.Fprintf(&text, "ingest {\n unix %q {}\n max_body = \"8MiB\"\n index = [\"data.device\"]\n}\nadmin {\n http = \"127.0.0.1:0\"\n token = %q\n link_key = [\"0123456789abcdef0123456789abcdef\"]\n}\n%s\n", f.socket, operator, block)
	text.WriteString("policy \"default\" {\n egress {\n allow_private = [\"127.0.0.0/8\"]\n allow_plaintext = true\n }\n}\n")
	for e := range figureEndpoints {
		fmt.Fprintf(&text, "endpoint %q {\n url = \"%s/%d\"\n sign = [\"none\"]\n events = [%q]\n}\n", figureEndpoint(e), receiver, e, fmt.Sprint("load.", e))
	}
	file := filepath.Join(dir, "relay.hcl")
	testkit.Must(t, os.WriteFile(file, []byte(text.String()), 0o600))
	c, err := config.Load([]string{file}, os.LookupEnv)
	testkit.Must(t, err)
	p, err := policy.Decode(c)
	testkit.Must(t, err)
	a, err := app.Open(t.Context(), app.Options{Config: c.Config, Policy: p, Version: "test", Grace: time.Second, Log: zerolog.Nop()})
	testkit.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { stop(); testkit.Must(t, <-done) })
	f.url = "http://" + a.Addrs("admin")[0].String()
	return f
}

// get reads an address of the page, and returns what it answers and how long it took.
func (f *figured) get(path string) (body []byte, took time.Duration) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.url+path, nil)
	testkit.Must(f, err)
	req.Header.Set("Authorization", "Bearer "+operator)
	req.Header.Set("Accept", "text/html")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	testkit.Must(f, err)
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	testkit.Must(f, err)
	if resp.StatusCode != http.StatusOK {
		f.Fatalf("%s answers %d: %s", path, resp.StatusCode, problemIn(body))
	}
	return body, time.Since(began)
}

// TestScreensOfALongHistory shows every screen over a long history. With RELAY_FIGURES it is of a million attempts, and
// it logs how long each screen takes; no time fails it.
func TestScreensOfALongHistory(t *testing.T) {
	n, rounds := 3000, 1
	if os.Getenv("RELAY_FIGURES") != "" {
		n, rounds = 1_000_000, 40
	}
	for _, e := range engines(t) {
		t.Run(e.engine, func(t *testing.T) {
			e.fill(t, n)
			f := startFigured(t, e.block, "http://127.0.0.1:1")
			list, _ := f.get("/deliveries?state=failed")
			id := regexp.MustCompile(`data-id="(dlv_[^"]+)"`).FindSubmatch(list)
			if id == nil {
				t.Fatalf("no failed delivery: %s", problemIn(list))
			}
			for _, path := range longScreens(string(id[1]), n) {
				var all []time.Duration
				for range rounds {
					_, took := f.get(path)
					all = append(all, took)
				}
				slices.Sort(all)
				at := func(share float64) time.Duration {
					return all[int(share*float64(len(all)-1))].Round(100 * time.Microsecond)
				}
				t.Logf("%-7s %-90s p50 %8s  p95 %8s  max %8s", e.engine, path, at(0.5), at(0.95), at(1))
			}
		})
	}
}

// longScreens are addresses of all screens that read the history.
func longScreens(id string, n int) []string {
	event := fmt.Sprintf("evt_%012d", n/2)
	all := []string{
		"/", "/endpoints", "/endpoints/endpoint7", "/endpoints?q=endpoint1", "/deliveries", "/deliveries/" + id, "/events/" + event, "/types", "/config", "/jobs", "/alerts", "/audit", "/links", "/explain",
		"/search?q=nothing+of+the+kind", "/deliveries?offset=2000", "/deliveries/bulk?action=redeliver&endpoint=endpoint7", "/deliveries/bulk?action=erase&tenant=tenant3",
	}
	conditions := []string{"endpoint=endpoint7", "state=failed", "state=delivered", "type=type.3", "type=type.*", "tenant=tenant3", "status=410", "status=5xx", "code=http_410", "since=1h", "until=1h", "data.device=device-7", "key=key-1234", "event=" + event, "attempts=1", "manual=true", "order=oldest"}
	for i, a := range conditions {
		all = append(all, "/deliveries?"+a)
		for _, b := range conditions[i+1:] {
			if strings.HasPrefix(a, "endpoint") && i < 1 || strings.HasPrefix(a, "state=failed") {
				if name, _, _ := strings.Cut(a, "="); !strings.HasPrefix(b, name+"=") {
					all = append(all, "/deliveries?"+a+"&"+b)
				}
			}
		}
	}
	return all
}

// The overview with its styles and its module is small, compressed as a server in front of Relay would.
func TestWeightOfTheOverview(t *testing.T) {
	r := newRunning(t)
	w := newWalker(t, r)
	get := func(path string) []byte {
		resp, err := w.client.Get(r.url + path)
		testkit.Must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		testkit.Must(t, err)
		return body
	}
	html := get("/")
	total := compressed(t, html)
	for _, name := range regexp.MustCompile(`/assets/[^"]+\.(?:css|js)[^"]*`).FindAllString(string(html), -1) {
		size := compressed(t, get(name))
		t.Logf("%s: %d bytes", name, size)
		total += size
	}
	t.Logf("HTML: %d bytes; in all %d", compressed(t, html), total)
	if total > 60<<10 {
		t.Errorf("the overview is %d bytes compressed, want at most 60 KiB", total)
	}
}

func compressed(t *testing.T, text []byte) int {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(text)
	testkit.Must(t, err)
	testkit.Must(t, z.Close())
	return b.Len()
}

// TestViewers compares how many deliveries a second Relay makes with and without fifty people who watch, in turns. It
// runs with RELAY_FIGURES, and logs what it finds.
func TestViewers(t *testing.T) {
	viewers, events, rounds := 3, 300, 1
	if os.Getenv("RELAY_FIGURES") != "" {
		viewers, events, rounds = 50, 40_000, 7
	}
	var got atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	t.Cleanup(receiver.Close)
	block := fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", filepath.Join(t.TempDir(), "outbox"))
	f := startFigured(t, block, receiver.URL)
	var with, without []float64
	for range rounds {
		without = append(without, f.throughput(&got, events))
		ctx, leave := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		var rows atomic.Int64
		for range viewers {
			f.watch(ctx, &watching, &rows)
		}
		with = append(with, f.throughput(&got, events))
		testkit.Until(t, "a row for a viewer", func() bool { // who may have come after these events
			if rows.Load() == 0 {
				f.throughput(&got, 1)
			}
			return rows.Load() > 0
		})
		leave()
		watching.Wait()
	}
	slices.Sort(with)
	slices.Sort(without)
	t.Logf("deliveries a second: %.0f with %d viewers, %.0f without (medians of %d): %.3f", with[rounds/2], viewers, without[rounds/2], rounds, with[rounds/2]/without[rounds/2])
}

// throughput sends events in batches and returns how many were delivered in a second.
func (f *figured) throughput(got *atomic.Int64, n int) float64 {
	f.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.socket)
	}}}
	defer client.CloseIdleConnections()
	before, began := got.Load(), time.Now()
	for i := 0; i < n; i += 100 {
		var b bytes.Buffer
		for j := i; j < min(i+100, n); j++ {
			fmt.Fprintf(&b, "{\"type\":\"load.%d\",\"data\":{\"n\":%d}}\n", j%figureEndpoints, j)
		}
		resp, err := client.Post("http://relay/v1/events", "application/x-ndjson", &b)
		testkit.Must(f, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			f.Fatalf("ingest answers %d", resp.StatusCode)
		}
	}
	testkit.Until(f, "all deliveries", func() bool { return got.Load()-before >= int64(n) })
	return float64(n) / time.Since(began).Seconds()
}

// watch follows the live list as a browser does.
func (f *figured) watch(ctx context.Context, watching *sync.WaitGroup, rows *atomic.Int64) {
	f.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/live?"+url.Values{}.Encode(), nil)
	testkit.Must(f, err)
	req.Header.Set("Authorization", "Bearer "+operator)
	resp, err := http.DefaultClient.Do(req)
	testkit.Must(f, err)
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(cmp.Or(kind, "none"), "text/event-stream") {
		f.Fatalf("/live answers %d %s", resp.StatusCode, kind)
	}
	watching.Go(func() {
		defer resp.Body.Close()
		part := make([]byte, 32<<10)
		for {
			k, err := resp.Body.Read(part)
			rows.Add(int64(bytes.Count(part[:k], []byte("event: row"))))
			if err != nil {
				return
			}
		}
	})
}
