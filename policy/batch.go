package policy

import (
	"fmt"
	"time"

	"relay/config"
)

// The content types of batches, if they differ from that of a single event.
const (
	typeNDJSON           = "application/x-ndjson"
	typeCloudEventsBatch = "application/cloudevents-batch+json"
)

// Limits of the file's batch blocks.
const (
	mostEvents = 1000
	mostWait   = time.Minute
	leastBytes = 1 << 10
	mostBytes  = 16 << 20
)

// Batch puts several events of an endpoint into one POST: an array of their single bodies, or one
// body on each line.
type Batch struct {
	MaxEvents int           // in one POST, from 1
	MaxWait   time.Duration // for more events, counted from the first one
	MaxBytes  int64         // bytes of a body; a larger event goes alone
	NDJSON    bool          // one line for each event instead of an array
	Split     bool          // events of a refused batch go alone next; otherwise it is retried
}

// ContentType is the value of the header Content-Type, unless Headers have another.
func (e *Endpoint) ContentType() string {
	switch {
	case e.Batch != nil && e.Batch.NDJSON:
		return typeNDJSON
	case e.Body == nil:
		return typeJSON
	case e.Batch != nil && e.Body.contentType == typeCloudEvents:
		return typeCloudEventsBatch
	default:
		return e.Body.contentType
	}
}

// String is the settings in one line, "" for none.
func (b *Batch) String() string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("%d events, %s, %s, %s, on_refused %s",
		b.MaxEvents, config.FormatDuration(b.MaxWait), config.FormatSize(b.MaxBytes), b.Format(), b.OnRefused())
}

// The values of format and on_refused in the file.
const (
	formatArray  = "array"
	formatNDJSON = "ndjson"
	refusedSplit = "split"
	refusedRetry = "retry"
)

// Format is NDJSON as in the file.
func (b *Batch) Format() string {
	if b.NDJSON {
		return formatNDJSON
	}
	return formatArray
}

// OnRefused is Split as in the file.
func (b *Batch) OnRefused() string {
	if b.Split {
		return refusedSplit
	}
	return refusedRetry
}

// batch is a batch block as it is written.
type batch struct {
	on bool
	Batch
}

func defaultBatch() batch {
	return batch{Batch: Batch{MaxEvents: 100, MaxWait: time.Second, MaxBytes: 256 << 10, Split: true}}
}

// read applies a block. A block that is written is on, unless it says enabled = false.
func (r *batch) read(b *config.Block) {
	r.on = true
	b.Bool("enabled", &r.on)
	b.Int("max_events", &r.MaxEvents, 1, mostEvents)
	b.Duration("max_wait", &r.MaxWait, 0, mostWait)
	b.Size("max_bytes", &r.MaxBytes, leastBytes, mostBytes)
	word := r.Format()
	if b.String("format", &word, config.OneOf(formatArray, formatNDJSON)) {
		r.NDJSON = word == formatNDJSON
	}
	word = r.OnRefused()
	if b.String("on_refused", &word, config.OneOf(refusedSplit, refusedRetry)) {
		r.Split = word == refusedSplit
	}
	b.Done()
}

func (r *batch) spell() *Batch {
	if !r.on {
		return nil
	}
	return new(r.Batch)
}

// checkBatch refuses settings that cannot be combined with batches.
func (e *Endpoint) checkBatch(b *config.Block) {
	if e.Batch == nil {
		return
	}
	if e.FleetConcurrency > 0 {
		b.Fail(b.At("fleet_concurrency"), "Invalid batch", "fleet_concurrency bounds single deliveries, "+
			"and cannot bound POSTs of batches. Write fleet_concurrency = 0, or leave out batch.")
	}
	switch {
	case e.Body == nil:
	case e.Body.binary != "":
		b.Fail(b.At("body"), "Invalid batch", "a cloudevent_binary has header lines of its own, so it goes alone. "+
			"Write body = cloudevent, or leave out batch.")
	case !isJSON(e.Body.contentType):
		b.Fail(b.At("body"), "Invalid batch", fmt.Sprintf("a batch is made of JSON, and this body is %s. "+
			"Write a body that is JSON, or leave out batch.", b.At("content_type").Quote(e.Body.contentType)))
	}
}
