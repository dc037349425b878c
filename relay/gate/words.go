package gate

// EndpointState says whether an endpoint's deliveries are made.
type EndpointState string

// The states. Deliveries are held unless the state is active or elsewhere.
const (
	StateActive    EndpointState = "active"
	StatePaused    EndpointState = "paused"    // by an operator
	StateDisabled  EndpointState = "disabled"  // by the file, by an operator, or by Relay: see Halt
	StateRemoved   EndpointState = "removed"   // in the outbox, but in no file
	StateElsewhere EndpointState = "elsewhere" // only in the files of other Relays, which deliver
)

// Cause says why no attempt may begin now.
type Cause string

// The causes.
const (
	Open       Cause = ""            // attempts may begin
	Limit      Cause = "limit"       // of the policy, or by the receiver's rate headers
	Breaker    Cause = "breaker"     // it is open, or its probes are under way
	RetryAfter Cause = "retry_after" // the receiver asked for time
	NoConsent  Cause = "consent"     // of the receiver; Grant.Wait is 0 when it is to be asked for
	Paused     Cause = "paused"      // by an operator
	Disabled   Cause = "disabled"    // by an operator, or by Relay: see Halt
	Slots      Cause = "slots"       // as many attempts are under way as concurrency allows; no gate says so
)

// Causes are all causes but Open.
func Causes() []Cause {
	return []Cause{Limit, Breaker, RetryAfter, NoConsent, Paused, Disabled, Slots}
}

// The states of a breaker.
const (
	Closed   = "closed"
	Opened   = "open"
	HalfOpen = "half_open" // probes test whether the receiver works again
)
