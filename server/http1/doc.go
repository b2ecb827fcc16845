// Package http1 serves HTTP/1.1 for less processor time than net/http's server, which it stands in front of.
//
// It serves itself what nearly all requests are: HTTP/1.1 in its plain form, with a body of known length or none, on kept
// connections that are not TLS. As soon as a connection brings anything else, well formed or not (chunked bodies, Expect,
// Upgrade, HTTP/1.0, HTTP/2's preface, heads over the limit or that two parsers might read differently), the bytes that were
// read and all that follow go to an http.Server, before a handler ran, and it keeps that connection. So this package answers no request
// with an error of its own, and need understand nothing twice.
//
// A connection has one goroutine. It reads a head into the connection's buffer (head.go), makes the *http.Request that
// net/http would make (request.go), and runs the handler with a writer (response.go) that sends a short answer, or a piece
// of a stream, with one system call. After watchAfter a second goroutine waits for the client's going away (conn.go);
// requests that end before, most of them, pay for a timer only.
//
// Handlers see what they see under net/http, but for these: no Hijacker, no CloseNotifier, no full duplex; no trailers and
// no Transfer-Encoding of their own (dropped with a line in the log); http.MaxBytesReader cannot tell this writer to close
// the connection, which is therefore closed by what is left of the body: after 256 KiB. Deadlines that a
// handler sets may come an eighth later than asked.
package http1
