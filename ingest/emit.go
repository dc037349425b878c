package ingest

import (
	"bytes"
	"context"
	"io"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
)

// Event is an event that comes by another way than a request of its own.
type Event struct {
	Type, ID, Key, Tenant string // all but Type may be empty
	Data                  []byte // JSON
}

// Emit accepts events in one commit, by the rules of a request: the same checks, the same routes,
// the same refusals. It returns nil after the outbox has committed all of them. It waits for the
// outbox until ctx ends, or 10 seconds if ctx has no deadline.
func (in *Ingest) Emit(ctx context.Context, events []Event) *problem.Problem {
	var size int64
	for _, e := range events {
		size += int64(len(e.Data))
	}
	if !in.take(size) {
		return in.shed()
	}
	defer in.give(size)
	if len(events) > maxBatch {
		return tooManyEvents()
	}
	d, ok := in.decoders.Get().(*decoder)
	if !ok {
		d = new(decoder)
	}
	defer in.decoders.Put(d)
	defer d.close()
	var b outbox.Batch
	for _, e := range events {
		entry, p := d.emitted(e)
		if p != nil {
			return p
		}
		b.Entries = append(b.Entries, entry)
	}
	if p := in.complete(&b, len(events) > 1); p != nil {
		return p
	}
	receipts, p := in.accept(ctx, b)
	if p != nil {
		return p
	}
	in.o.Log.Debug().Str("event_id", receipts[0].ID).Int("events", len(receipts)).Msg("accepted")
	in.tellFailed(b.Entries, receipts)
	return nil
}

func (d *decoder) emitted(e Event) (entry outbox.Entry, p *problem.Problem) {
	if validType(e.Type) != nil {
		return entry, wrongType()
	}
	for _, field := range []struct {
		name, value string
		code        problem.Code
		valid       func(string) error
	}{
		{"id", e.ID, problem.InvalidID, policy.ValidID},
		{"key", e.Key, problem.InvalidKey, policy.ValidLabel},
		{"tenant", e.Tenant, problem.InvalidTenant, policy.ValidLabel},
	} {
		if field.value != "" && field.valid(field.value) != nil {
			p := problem.New(field.code, allowed[field.code])
			p.Field = field.name
			return entry, p
		}
	}
	data, p := d.checkJSON(e.Data)
	if p != nil {
		return entry, p
	}
	entry.Event = outbox.Event{Type: e.Type, ID: e.ID, Key: e.Key, Tenant: e.Tenant, Data: bytes.Clone(data)}
	return entry, nil
}

// HandleBody is Handle for a body that is still to be read, of any length.
func (in *Ingest) HandleBody(ctx context.Context, r *Request, body io.Reader) Response {
	if !in.take(in.o.MaxBody) {
		return response(in.shed())
	}
	defer in.give(in.o.MaxBody)
	data, err := io.ReadAll(io.LimitReader(body, in.o.MaxBody+1))
	if err == nil && int64(len(data)) > in.o.MaxBody {
		err = errChunkSize
	}
	if err != nil {
		return response(in.bodyProblem(err))
	}
	r.Body = data
	return in.Handle(ctx, r)
}
