// A receiver of Standard Webhooks in Go, with the standard library only.
//
//	export WEBHOOK_SECRET=whsec_…             # several during a rotation, with spaces between
//	go run ./examples/verify 127.0.0.1:9000
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tolerance = 5 * time.Minute // between the sender's clock and ours
	maxBody   = 1 << 20
)

// verify tells whether a request is from somebody who has one of the keys, and is new.
// body is what came, byte for byte: never parse it and write it again before.
func verify(keys [][]byte, h http.Header, body []byte) error {
	id, timestamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || id == "" {
		return errors.New("webhook-id or webhook-timestamp is missing")
	}
	if time.Since(time.Unix(seconds, 0)).Abs() > tolerance {
		return errors.New("the timestamp is too old or too new")
	}
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.", id, timestamp)
		mac.Write(body)
		want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		// A sender that changes its secret signs with both.
		for signature := range strings.FieldsSeq(h.Get("webhook-signature")) {
			if hmac.Equal([]byte(signature), want) { // takes as long whatever differs
				return nil
			}
		}
	}
	return errors.New("no signature is right")
}

// receiver keeps the ids of what it has handled. A real one keeps them beside its data, in
// the same transaction: insert into handled (id) … on conflict do nothing.
type receiver struct {
	keys    [][]byte
	mu      sync.Mutex
	handled map[string]bool
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	if err := verify(r.keys, req.Header, body); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	id := req.Header.Get("webhook-id")
	r.mu.Lock()
	again := r.handled[id]
	r.handled[id] = true
	r.mu.Unlock()
	if !again { // at least once means: sometimes twice
		fmt.Printf("handled %s %s\n", id, body) // the work; what takes long belongs in a queue
	}
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	var keys [][]byte
	for secret := range strings.FieldsSeq(os.Getenv("WEBHOOK_SECRET")) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) == 0 {
			log.Fatal("a secret is whsec_ and base64")
		}
		keys = append(keys, key)
	}
	if len(os.Args) != 2 || len(keys) == 0 {
		log.Fatal("usage: WEBHOOK_SECRET=whsec_… verify HOST:PORT")
	}
	ln, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", ln.Addr())
	server := &http.Server{Handler: &receiver{keys: keys, handled: map[string]bool{}}, ReadTimeout: 10 * time.Second}
	log.Fatal(server.Serve(ln))
}
