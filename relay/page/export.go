package page

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"relay/ingest/problem"
	"relay/relay/admin"
)

const (
	maxExports = 8                // at a time, by admin.Crowd
	exportMost = 50_000           // deliveries of a file
	exportPage = "100"            // of them are asked for at a time
	exportTime = 30 * time.Second // in which the reader must have taken a page

	byteOrderMark = "\ufeff" // tells programs for tables that a file is in UTF-8
)

// export writes deliveries of the filter as a file, page by page: what the list of the API has, so neither payloads nor what
// the session may not see. A file that could not be made whole, as its access ended or the outbox fails, ends in the
// middle of the answer, which the browser reports.
func (c *call) export() error {
	leave, ok := c.p.exports.Enter(c.access)
	if !ok {
		return &refusal{Status: http.StatusServiceUnavailable, Code: string(problem.Overloaded)}
	}
	defer leave()
	row, kind := jsonRow, "application/x-ndjson"
	_, format, _ := strings.Cut(c.r.URL.Path, ".")
	if format == "csv" {
		row, kind = csvRow, "text/csv; charset=utf-8"
	}
	q := listQuery(c.r.URL.Query())
	for _, of := range []string{"cursor", "offset"} {
		q.Del(of)
	}
	q.Set("limit", exportPage)
	q.Set("total", "false")
	begun := false
	for left := exportMost; left > 0; {
		var page struct {
			Items []json.RawMessage
			Next  *string
		}
		if begun && !c.holds() {
			panic(http.ErrAbortHandler)
		}
		if err := c.get("/v1/deliveries", q, &page); err != nil {
			if begun {
				panic(http.ErrAbortHandler)
			}
			return err
		}
		if !begun {
			begun = true
			h := c.w.Header()
			h.Set("Content-Type", kind)
			h.Set("Content-Disposition", `attachment; filename="deliveries-`+c.p.Now().UTC().Format("20060102-150405")+"."+format+`"`)
			if c.r.Method == http.MethodHead {
				return nil
			}
			if format == "csv" {
				_, _ = c.w.Write(append([]byte(byteOrderMark), csvLine(csvHeads())...)) // the next write finds that the client has gone
			}
		}
		out := []byte{}
		for _, item := range page.Items[:min(left, len(page.Items))] {
			out = append(out, row(item)...)
		}
		_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(exportTime)) // a recorder of tests has none
		if _, err := c.w.Write(out); err != nil || page.Next == nil {
			return nil
		}
		left -= len(page.Items)
		q.Set("cursor", *page.Next)
	}
	return nil
}

func jsonRow(item json.RawMessage) []byte { return append([]byte(item), '\n') }

// csvHeads are the names of the columns.
func csvHeads() []string {
	return []string{"id", "created", "state", "code", "endpoint", "type", "event", "tenant", "key", "attempts", "status", "took_ms", "last_attempt", "next_attempt", "finished", "redelivery_of", "manual", "error"}
}

func csvRow(item json.RawMessage) []byte {
	var d admin.Delivery
	if err := json.Unmarshal(item, &d); err != nil {
		panic(http.ErrAbortHandler) // the list has others
	}
	status, took, last := "", "", time.Time{}
	if l := d.Last; l != nil {
		took, last = strconv.FormatFloat(l.TookMS, 'f', -1, 64), l.Started
		if l.Status != 0 {
			status = strconv.Itoa(l.Status)
		}
	}
	return csvLine([]string{d.ID, instant(d.Created), d.State, d.Code, d.Endpoint, d.Event.Type, d.Event.ID, d.Event.Tenant, d.Event.Key,
		strconv.Itoa(d.Attempts), status, took, instant(last), instant(d.NextAttempt), instant(d.Finished), d.RedeliveryOf, strconv.FormatBool(d.Manual), d.Error})
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// csvLine is a line of CSV (RFC 4180). A text that a program for tables would take for a formula gets an apostrophe before it.
func csvLine(cells []string) []byte {
	for i, cell := range cells {
		if first, _ := utf8.DecodeRuneInString(cell); cell != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
			cells[i] = "'" + cell
		}
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out) // its UseCRLF would change the line ends in cells, too
	_ = w.Write(cells)       // a Buffer takes all
	w.Flush()
	return append(bytes.TrimSuffix(out.Bytes(), []byte("\n")), "\r\n"...)
}
