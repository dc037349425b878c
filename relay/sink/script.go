package sink

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a script. They prevent a typing error from making a sink look dead.
const (
	maxSteps = 1_000
	maxCount = 1_000_000
	maxDelay = 24 * time.Hour
)

// Script is the sequence of the sink's answers. It is deterministic. The zero value answers 200
// for ever.
type Script struct {
	steps  []step
	total  int64 // sum of the counts
	repeat bool  // starts again at the end; otherwise the last step repeats for ever
}

type step struct {
	answer Answer
	count  int64
}

// Ending is a way to end a request without an answer.
type Ending string

// The endings.
const (
	Reset Ending = "reset" // the connection is reset (RST)
	Close Ending = "close" // the connection is closed in the ordinary way
	Hang  Ending = "hang"  // nothing until the client goes away
)

// Answer is the answer to one request.
type Answer struct {
	Status     int           // 200 to 599; 0 when Ending is set
	Ending     Ending        // instead of a status
	Delay      time.Duration // before it
	RetryAfter string        // the header's value in seconds, "" for none
}

// Kind is the status or the ending, without delay and header: "503", "hang".
func (a Answer) Kind() string {
	if a.Ending != "" {
		return string(a.Ending)
	}
	return strconv.Itoa(a.Status)
}

// String writes the answer as a script does: "429@2s:retry-after=30".
func (a Answer) String() string {
	s := a.Kind()
	if a.Delay > 0 {
		s += "@" + a.Delay.String()
	}
	if a.RetryAfter != "" {
		s += ":retry-after=" + a.RetryAfter
	}
	return s
}

// ParseScript reads a script: steps with commas between, run in the order of
// arrival. "503x3,200" answers 503 three times, then 200 for ever.
//
//	script = step { "," step } [ "," "..." ]
//	step   = answer { suffix }          each suffix at most once, in any order
//	answer = 200 to 599                 that status
//	       | "reset"                    connection reset, no answer
//	       | "close"                    connection closed, no answer
//	       | "hang"                     no answer until the client goes away
//	suffix = "x" COUNT                  that many times, 1 to 1,000,000
//	       | "@" DURATION               after this delay, up to 24h: 200@1.5s
//	       | ":retry-after=" SECONDS    with this header, on a status: 429:retry-after=30
//
// The last step goes on for ever; "..." at the end starts the script again
// instead. Spaces around commas are ignored. An error names the column (in
// characters, from 1), what is wrong there and what to write.
func ParseScript(text string) (Script, error) {
	var s Script
	column := 1
	parts := strings.Split(text, ",")
	for i, part := range parts {
		word := strings.TrimSpace(part)
		at := column + utf8.RuneCountInString(part[:strings.Index(part, word)])
		column += utf8.RuneCountInString(part) + 1
		if word == "..." {
			switch {
			case i == 0:
				return Script{}, scriptError(at, word, "nothing stands before it to repeat; write for example 503,200,...")
			case i < len(parts)-1:
				return Script{}, scriptError(at, word, "steps after it would never run; put it last")
			}
			s.repeat = true
			break
		}
		if len(s.steps) == maxSteps {
			return Script{}, scriptError(at, word, fmt.Sprintf("a script has at most %d steps; use a count, as in 503x3", maxSteps))
		}
		st, hint := parseStep(word)
		if hint != "" {
			return Script{}, scriptError(at, word, hint)
		}
		s.steps = append(s.steps, st)
		s.total += st.count
	}
	return s, nil
}

func scriptError(column int, word, hint string) error {
	return fmt.Errorf("script column %d: step %s: %s", column, quote(word), hint)
}

// parseStep returns the step, or a suggestion for what to write instead.
func parseStep(word string) (st step, hint string) {
	// No answer, count, duration or number of seconds holds one of these, except the x that a
	// misspelt word may have.
	const marks = "x@:"
	head, rest := cut(word, marks)
	switch e := Ending(head); e {
	case Reset, Close, Hang:
		st.answer.Ending = e
	default:
		n, ok := number(head, 599)
		if !ok || n < 200 {
			return step{}, "write a status from 200 to 599, reset, close or hang, for example 503x3,200"
		}
		st.answer.Status = int(n)
	}
	seen := ""
	for rest != "" {
		mark := rest[:1]
		if strings.Contains(seen, mark) {
			return step{}, fmt.Sprintf("%q stands twice; write it once", mark)
		}
		seen += mark
		var value string
		value, rest = cut(rest[1:], marks)
		switch mark {
		case "x":
			n, ok := number(value, maxCount)
			if !ok || n == 0 {
				return step{}, fmt.Sprintf("after x comes a count from 1 to %d, for example 503x3", maxCount)
			}
			st.count = n
		case "@":
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 || d > maxDelay {
				return step{}, "after @ comes a delay of up to 24h, for example 200@1.5s"
			}
			st.answer.Delay = d
		case ":":
			seconds, found := strings.CutPrefix(value, "retry-after=")
			if _, ok := number(seconds, 1<<62); !found || !ok || st.answer.Status == 0 {
				return step{}, "after a status and : comes retry-after=SECONDS, for example 429:retry-after=30"
			}
			st.answer.RetryAfter = seconds
		}
	}
	st.count = max(st.count, 1)
	return st, ""
}

// cut splits s before the first of marks.
func cut(s, marks string) (before, rest string) {
	if i := strings.IndexAny(s, marks); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// number reads plain digits: no sign, no underscore.
func number(s string, limit uint64) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil && n <= limit
}

// String writes the script so that ParseScript reads it back.
func (s Script) String() string {
	if len(s.steps) == 0 {
		return "200"
	}
	var b strings.Builder
	for i, st := range s.steps {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(st.answer.String())
		if st.count > 1 {
			fmt.Fprintf(&b, "x%d", st.count)
		}
	}
	if s.repeat {
		b.WriteString(",...")
	}
	return b.String()
}

// answer is the answer to request n, counted from 0.
func (s Script) answer(n int64) Answer {
	if len(s.steps) == 0 {
		return Answer{Status: http.StatusOK}
	}
	if s.repeat {
		n %= s.total
	}
	for _, st := range s.steps {
		if n < st.count {
			return st.answer
		}
		n -= st.count
	}
	return s.steps[len(s.steps)-1].answer
}
