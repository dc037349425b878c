package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// LinkKind is the kind of documents that take links back: one for each link, tenant, or receiver of links of a tenant. It is
// removed when the last link that it can be about has ended by itself.
const LinkKind = "link"

const (
	longestLink = 30 * 24 * time.Hour
	forgetEvery = time.Hour // how often documents are looked for that can go
)

// which links: one by its id, all of a tenant, or those of a tenant that were made for somebody.
type which struct {
	ID     string `json:"id,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	For    string `json:"for,omitempty"` // "" for anybody
}

// name is that of the document.
func (w which) name() string {
	sum := sha256.Sum256([]byte(w.ID + "\x00" + w.Tenant + "\x00" + w.For))
	return hex.EncodeToString(sum[:16])
}

// revocation is the body of a document.
type revocation struct {
	which
	Until int64 `json:"until"` // seconds since 1970: links that were made until then are taken back
	Ends  int64 `json:"ends"`  // when the last of them has ended by itself
}

// keep keeps the later times of what was written before about the same links.
func (r *revocation) keep(body []byte) {
	var before revocation
	if json.Unmarshal(body, &before) == nil {
		r.Until, r.Ends = max(r.Until, before.Until), max(r.Ends, before.Ends)
	}
}

// Revoked knows the links that were taken back, from documents of the outbox. Asking it reads nothing. A Relay that is cut
// off from its outbox goes on with what it knows, and hears of the rest afterwards.
type Revoked struct {
	store outbox.Documents
	log   zerolog.Logger

	known atomic.Pointer[map[which]int64] // until when such links were made; nil before the first read

	mu        sync.Mutex // held while documents are read and taken
	revision  uint64
	documents map[string]outbox.Document
}

// NewRevoked knows nothing before Load or Follow.
func NewRevoked(store outbox.Documents, log zerolog.Logger) *Revoked {
	return &Revoked{store: store, log: log, documents: map[string]outbox.Document{}}
}

// Load reads what is new. Errors: those of outbox.Documents.
func (v *Revoked) Load(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	all, revision, err := v.store.Documents(ctx, LinkKind, v.revision)
	if err != nil {
		return fmt.Errorf("read links that were taken back: %w", err)
	}
	v.revision = revision
	v.take(all...)
	return nil
}

// take notes documents. The caller holds mu.
func (v *Revoked) take(all ...outbox.Document) {
	for _, d := range all {
		if d.Revision >= v.documents[d.Name].Revision {
			v.documents[d.Name] = d
		}
	}
	known := map[which]int64{}
	for name, d := range v.documents {
		var r revocation
		switch {
		case len(d.Body) == 0:
			delete(v.documents, name)
		case json.Unmarshal(d.Body, &r) != nil:
			v.log.Error().Str("error", "document "+name+" is not JSON").Msg("a link that was taken back is not known")
		default:
			known[r.which] = r.Until
		}
	}
	v.known.Store(&known)
}

// Follow keeps up with all Relays of the outbox until ctx ends, or the outbox is closed.
func (v *Revoked) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := v.Load(ctx)
		if err == nil {
			v.forget(ctx)
			waiting, cancel := context.WithTimeout(ctx, forgetEvery)
			err = v.store.AwaitDocuments(waiting, LinkKind, v.at())
			cancel()
		}
		switch {
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			continue
		case errors.Is(err, outbox.ErrClosed):
			return
		case ctx.Err() == nil: // an outage
			v.log.Warn().Str("error", err.Error()).Msg("links that were taken back cannot be read now; tried again")
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (v *Revoked) at() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.revision
}

// forget removes documents about links that have all ended. Several Relays may do so at the same time.
func (v *Revoked) forget(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, d := range v.documents {
		var r revocation
		if json.Unmarshal(d.Body, &r) != nil || time.Now().Unix() < r.Ends {
			continue
		}
		d.Body = nil
		if _, err := v.store.PutDocument(ctx, d); err == nil || errors.Is(err, outbox.ErrConflict) {
			delete(v.documents, name) // another's write comes with the next read
		}
	}
}

// revoke takes links back that were made until a time. It is in force here at once. Errors: those of outbox.Documents.
func (v *Revoked) revoke(ctx context.Context, w which, until time.Time) (ends time.Time, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ends = until.Add(longestLink).Truncate(time.Second)
	r := revocation{w, until.Unix(), ends.Add(time.Hour).Unix()} // an hour more, as clocks of Relays differ
	stored := v.documents[w.name()]
	for {
		r.keep(stored.Body)
		body, err := json.Marshal(r)
		if err != nil {
			return ends, fmt.Errorf("take links back: %w", err)
		}
		stored, err = v.store.PutDocument(ctx, outbox.Document{Kind: LinkKind, Name: w.name(), Revision: stored.Revision, Body: body})
		switch {
		case errors.Is(err, outbox.ErrConflict): // another Relay took the same links back
		case err != nil:
			return ends, fmt.Errorf("take links back: %w", err)
		default:
			v.take(stored)
			return ends, nil
		}
	}
}

// end says whether a link was taken back. A nil Revoked knows of none.
func (v *Revoked) end(c *claims) LinkEnd {
	if v == nil {
		return LinkHolds
	}
	known := v.known.Load()
	if known == nil {
		return LinkUnsure
	}
	for _, w := range []which{{ID: c.ID}, {Tenant: c.Tenant}, {Tenant: c.Tenant, For: c.For}} {
		if until, is := (*known)[w]; is && (w.ID != "" || c.Made <= until) {
			return LinkRevoked
		}
	}
	return LinkHolds
}
