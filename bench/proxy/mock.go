package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	model      = "mock"
	streamSize = 128 // chunks of a streamed answer
	chunkGap   = 2 * time.Millisecond
)

// mock is the least that an upstream can do: it writes prepared bytes, by hand instead of with net/http, so that most of the
// machine is left for what is measured.
func mock(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = serveConn(conn) // an end of the connection is its normal end
		}()
	}
}

func serveConn(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 128<<10)
	var body []byte
	for {
		path, length, err := readHead(in)
		if err != nil {
			return err
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		switch {
		case path == "/health", path == "/metrics":
			err = respond(conn, "")
		case path == "/v1/models":
			err = respond(conn, `{"object":"list","data":[{"id":"`+model+`","object":"model","owned_by":"vllm","max_model_len":1000000}]}`)
		case bytes.Contains(body, []byte(`"stream":true`)):
			err = stream(conn)
		default:
			err = respond(conn, plainAnswer)
		}
		if err != nil {
			return err
		}
	}
}

// readHead reads a request up to its body.
func readHead(in *bufio.Reader) (path string, length int, err error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", 0, err
	}
	if f := strings.Fields(line); len(f) == 3 {
		path = f[1]
	}
	for {
		if line, err = in.ReadString('\n'); err != nil || line == "\r\n" {
			return path, length, err
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "content-length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return "", 0, err
			}
		}
	}
}

var plainAnswer = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"mock","choices":[{"index":0,"message":{"role":` +
	`"assistant","content":"` + strings.Repeat("word ", 100) + `"},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":` +
	`{"prompt_tokens":10,"completion_tokens":100,"total_tokens":110}}`

func respond(w io.Writer, body string) error {
	_, err := fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err
}

// stream writes an answer in chunks, each of which says when it was sent.
func stream(w io.Writer) error {
	if _, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	tick := time.NewTicker(chunkGap)
	defer tick.Stop()
	for i := range streamSize {
		if i > 0 {
			<-tick.C
		}
		if err := event(w, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[{"index":0,"delta":`+
			`{"content":"`+strconv.FormatInt(time.Now().UnixNano(), 10)+`"},"logprobs":null,"finish_reason":null}]}`); err != nil {
			return err
		}
	}
	for _, last := range []string{`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[{"index":0,` +
		`"delta":{},"finish_reason":"stop"}]}`, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock",` +
		`"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":128,"total_tokens":138}}`, "[DONE]"} {
		if err := event(w, last); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "0\r\n\r\n")
	return err
}

func event(w io.Writer, data string) error {
	_, err := fmt.Fprintf(w, "%x\r\ndata: %s\n\n\r\n", len(data)+8, data)
	return err
}
