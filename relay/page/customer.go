package page

import (
	"regexp"
	"strings"
)

var (
	// ofOperator are words that only who runs Relay understands, or may know.
	ofOperator = regexp.MustCompile(`(?i)\b(files?|hcl|tokens?|api|get /|egress|operators?|configurations?|verbs?|tenants?|relays?|retention|audit|run[ -]?time|reload(ed)?|fleet|secrets_key|link_key|force=true|index = )`)

	inBrackets = regexp.MustCompile(`\s*\([^()]*\)`)
)

// forCustomer takes out of a refusal of the API what is for who runs Relay. Its code has a sentence for everybody.
func (r *refusal) forCustomer() {
	r.Detail = plainDetail(r.Detail)
	for i, flaw := range r.Diagnostics {
		pointer, detail, is := strings.Cut(flaw, ": ")
		if !is || !strings.HasPrefix(flaw, "/") {
			r.Diagnostics[i] = plainDetail(flaw)
			continue
		}
		r.Diagnostics[i] = pointer + ": " + plainDetail(detail)
	}
}

// plainDetail is what of a detail anybody can understand, "" for nothing.
func plainDetail(detail string) string {
	detail = inBrackets.ReplaceAllStringFunc(withoutAdvice(detail), func(s string) string {
		if ofOperator.MatchString(s) {
			return ""
		}
		return s
	})
	if ofOperator.MatchString(detail) {
		return ""
	}
	return detail
}
