package sqlite

import "time"

// WithWall gives an outbox another wall clock than the machine's.
func (o Options) WithWall(wall func() time.Time) Options {
	o.wall = wall
	return o
}
