// Command show says, for each line that it reads, what time it is and how much has passed.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	start := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().UnixMicro(), time.Since(start))
	}
}
