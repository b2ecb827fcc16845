// Command proxy measures what the proxy engine costs: requests reach a mock upstream on the same machine directly, through
// Pagoda, and through nginx where that is installed, in turns. `make bench-proxy` runs it.
//
// The load is open: requests leave on a schedule whatever becomes of the ones before, and latency counts from the schedule, so
// that a stall shows in full. The mock writes the time into each chunk, from which the client knows how long it was under way.
// Client (client.go, answer.go) and mock (mock.go) are one thread each that waits in epoll (socket.go): goroutines and net/http
// would take more of the machine than the proxies that are measured on it. What it prints, docs/performance.md explains.
package main
