// Command fakeupstream runs a fake vLLM, SGLang or KTransformers server for tests: its first argument is which, the rest is
// that server's own command line.
package main

import (
	"os"

	"pagoda/backends/proxy/fakeupstream"
)

func main() { os.Exit(fakeupstream.Main(os.Args[1:])) }
