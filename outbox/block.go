package outbox

import "context"

// Block is a Claim that waits, made of an engine's Claim with Ready. The caller sees to it that
// an endpoint has one at a time.
func Block(ctx context.Context, s Store, r ClaimRequest) ([]Claim, error) {
	ready := make(chan struct{}, 1)
	r.Ready = func() { ready <- struct{}{} } // each is called once, and has been waited for by the next
	for {
		claims, err := s.Claim(ctx, r)
		if len(claims) > 0 || err != nil {
			return claims, err
		}
		select {
		case <-ready:
		case <-ctx.Done():
			s.Withdraw(r.Endpoint)
			return nil, ctx.Err()
		}
	}
}
