// Package outboxtest holds what tests of the outbox and of everything on top of
// it need: Run, the suite that every engine passes; Mem, an engine in memory;
// Faulty, a wrapper that makes any engine fail on cue; and Ledger, which tells
// after a crash whether anything was lost.
package outboxtest
