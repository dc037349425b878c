package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// LinkKind is the kind of documents that take links back: one for each link, tenant, or receiver of links of a tenant. It is
// removed when the last link that it can be about has ended by itself.
const LinkKind = "link"

const (
	longestLink  = 30 * 24 * time.Hour
	clocksDiffer = 24 * time.Hour // by how much clocks of Relays, and that of the outbox, may: links end by the clock of who made them
	forgetEvery  = time.Hour      // how often documents are looked for that can go
	forgetMost   = 100            // how many go before the next look
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
	Until int64 `json:"until"` // milliseconds since 1970, by the outbox's clock: links that were made until then are taken back
	Ends  int64 `json:"ends"`  // seconds since 1970, by the outbox's clock: when the last of them has ended by itself
}

// keep keeps the later times of what was written before about the same links.
func (r *revocation) keep(before revocation) {
	r.Until, r.Ends = max(r.Until, before.Until), max(r.Ends, before.Ends)
}

// Revoked knows the links that were taken back, from documents of the outbox. Asking it reads nothing. A Relay that is cut
// off from its outbox goes on with what it knows, and hears of the rest afterwards.
type Revoked struct {
	store outbox.Documents
	clock outbox.Clock // of the outbox; nil: this process's clock
	log   zerolog.Logger

	mu       sync.RWMutex // never held during a call of the store
	loaded   bool
	revision uint64 // of the last document that was read
	known    map[which]known
	names    map[string]which // of the documents
}

// known is what a document says, with its revision.
type known struct {
	revocation
	revision uint64
}

// NewRevoked knows nothing before Load or Follow.
func NewRevoked(store outbox.Documents, log zerolog.Logger) *Revoked {
	clock, _ := store.(outbox.Clock)
	return &Revoked{store: store, clock: clock, log: log, known: map[which]known{}, names: map[string]which{}}
}

// Load reads what is new. It must not be called by several at the same time. Errors: those of outbox.Documents.
func (v *Revoked) Load(ctx context.Context) error {
	all, revision, err := v.store.Documents(ctx, LinkKind, v.at())
	if err != nil {
		return fmt.Errorf("read links that were taken back: %w", err)
	}
	v.take(all...)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.loaded, v.revision = true, revision
	return nil
}

// take notes documents. Those that are older than what is known change nothing.
func (v *Revoked) take(all ...outbox.Document) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range all {
		old, is := v.names[d.Name]
		if is && v.known[old].revision >= d.Revision {
			continue
		}
		var r revocation
		switch {
		case len(d.Body) == 0:
			v.drop(d.Name)
		case json.Unmarshal(d.Body, &r) != nil:
			v.log.Error().Str("error", "document "+d.Name+" is not JSON").Msg("a link that was taken back is not known")
		default:
			v.names[d.Name], v.known[r.which] = r.which, known{r, d.Revision}
		}
	}
}

// drop forgets a document. The caller holds mu.
func (v *Revoked) drop(name string) {
	delete(v.known, v.names[name])
	delete(v.names, name)
}

// Follow keeps up with all Relays of the outbox until ctx ends, or the outbox is closed.
func (v *Revoked) Follow(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := v.follow(ctx)
		switch {
		case err == nil:
			said = ""
			continue
		case errors.Is(err, outbox.ErrClosed), ctx.Err() != nil:
			return
		case err.Error() != said: // an outage
			said = err.Error()
			v.log.Warn().Str("error", said).Msg("links that were taken back cannot be read now; tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// follow reads what is new, and waits until there is more, or some can be forgotten. A timeout of the outbox is an error like
// any other: only the end of its own wait is none.
func (v *Revoked) follow(ctx context.Context) error {
	if err := v.Load(ctx); err != nil {
		return err
	}
	v.forget(ctx)
	waiting, cancel := context.WithTimeout(ctx, forgetEvery)
	defer cancel()
	err := v.store.AwaitDocuments(waiting, LinkKind, v.at())
	if waiting.Err() != nil {
		return nil
	}
	return err
}

func (v *Revoked) at() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.revision
}

// forget removes documents about links that have all ended. Several Relays may do so at the same time. What is left after an
// error, or after forgetMost, comes with a later look: each removal is a write, which ends the wait of follow.
func (v *Revoked) forget(ctx context.Context) {
	for _, d := range v.over() {
		if _, err := v.store.PutDocument(ctx, d); err != nil && !errors.Is(err, outbox.ErrConflict) {
			return
		}
		v.mu.Lock()
		if v.known[v.names[d.Name]].revision == d.Revision { // else another's write was read meanwhile
			v.drop(d.Name)
		}
		v.mu.Unlock()
	}
}

// over are up to forgetMost documents that can go, without their bodies.
func (v *Revoked) over() (all []outbox.Document) {
	now := time.Now()
	if v.clock != nil { // a Relay whose own clock is ahead must not make links hold again
		now = v.clock.At(now)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for name, w := range v.names {
		if d := v.known[w]; len(all) < forgetMost && now.Unix() >= d.Ends {
			all = append(all, outbox.Document{Kind: LinkKind, Name: name, Revision: d.revision})
		}
	}
	return all
}

// revoke takes links back that were made until a time, by the outbox's clock. It is in force here at once. Errors: those of
// outbox.Documents.
func (v *Revoked) revoke(ctx context.Context, w which, until time.Time) (ends time.Time, err error) {
	ends = until.Add(longestLink).Truncate(time.Second)
	r := revocation{w, until.UnixMilli(), ends.Add(clocksDiffer).Unix()}
	v.mu.RLock()
	before := v.known[w]
	v.mu.RUnlock()
	r.keep(before.revocation)
	stored := outbox.Document{Revision: before.revision}
	for {
		body, err := json.Marshal(r)
		if err != nil {
			return ends, fmt.Errorf("take links back: %w", err)
		}
		stored, err = v.store.PutDocument(ctx, outbox.Document{Kind: LinkKind, Name: w.name(), Revision: stored.Revision, Body: body})
		switch {
		case errors.Is(err, outbox.ErrConflict): // another Relay took the same links back
			var other revocation
			if json.Unmarshal(stored.Body, &other) == nil { // else it was removed meanwhile
				r.keep(other)
			}
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
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.loaded {
		return LinkUnsure
	}
	for _, w := range []which{{ID: c.ID}, {Tenant: c.Tenant}, {Tenant: c.Tenant, For: c.For}} {
		if r, is := v.known[w]; is && (w.ID != "" || c.Made <= r.Until) {
			return LinkRevoked
		}
	}
	return LinkHolds
}
