package page

import "fmt"

// accentStyle is the accent colour of the file, adjusted until it can be read on both grounds.
func accentStyle(accent string) []byte {
	return fmt.Appendf(nil, "\n:root { --accent: %s; }\n", accent)
}
