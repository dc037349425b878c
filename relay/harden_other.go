//go:build !linux

package main

// hardenProcess does nothing here: see harden_linux.go.
func hardenProcess(bool) {}
