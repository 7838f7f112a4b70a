// Asks for the addresses of a name, as every program with Go's own resolver does.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	if _, err := net.LookupHost(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
