package deliver

import (
	"strconv"

	"relay/policy"
	"relay/relay/post"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // any 2xx
	Retry     Outcome = "retry"     // another attempt may succeed
	Refused   Outcome = "refused"   // the receiver's final answer
	Gone      Outcome = "gone"      // 410: the receiver wants no more events
)

// The codes of attempts beside those that post and policy name: an answer has the code
// http_<status>, except for redirects (codeRedirect) and 410 (codeGone).
const (
	codeBody         = "body_error"    // the endpoint's body cannot be made of the event; never tried again
	codeBatchRefused = "batch_refused" // so was the batch, not the event: it goes alone next
	codePanic        = "panic"         // a defect of Relay

	codeRedirect = "redirect_not_followed"
	codeGone     = "gone"
)

// classify judges an attempt by the status of its answer or, if code is set, by the reason why
// there is no complete one. It returns the outcome and the code for the record, "" for delivered.
func classify(status int, code string, on policy.Outcomes) (Outcome, string) {
	switch code {
	case "":
		return classifyStatus(status, on)
	case codePanic, policy.CodeBusy, post.CodeNoSocket:
		return Retry, code
	default:
		return retryIf(on.Has(0, code)), code
	}
}

func classifyStatus(status int, on policy.Outcomes) (Outcome, string) {
	if status >= 200 && status <= 299 {
		return Delivered, ""
	}
	outcome, code := retryIf(on.Status(status)), "http_"+strconv.Itoa(status)
	switch {
	case status >= 300 && status <= 399:
		code = codeRedirect
	case status == 410:
		code = codeGone
		if outcome == Refused {
			outcome = Gone
		}
	}
	return outcome, code
}

func retryIf(again bool) Outcome {
	if again {
		return Retry
	}
	return Refused
}
