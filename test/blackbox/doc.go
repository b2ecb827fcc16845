// Package blackbox tests the program from outside: it builds cmd/pagoda, starts `pagoda serve` as a process and talks to
// it over HTTP and with signals only. It knows nothing of the other packages.
package blackbox
