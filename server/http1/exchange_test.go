package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair is net/http's server and ours with the same handler, each of which notes what it saw.
type pair struct{ theirs, ours *side }

type side struct {
	addr string
	mu   sync.Mutex // guards all below
	seen []seen
	logs bytes.Buffer
}

// seen is a request as the handler saw it.
type seen struct{ method, text, writer string }

func (s *side) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.Write(p)
}

func (s *side) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	at := len(s.seen)
	s.seen = append(s.seen, seen{r.Method, "", fmt.Sprintf("%T", w)})
	s.mu.Unlock()
	var text strings.Builder
	defer func() {
		s.mu.Lock()
		s.seen[at].text = text.String()
		s.mu.Unlock()
	}()
	fmt.Fprintf(&text, "%s %s %s %d.%d host=%s length=%d coding=%v close=%v url=%#v none=%v\n", r.Method, r.RequestURI, r.Proto,
		r.ProtoMajor, r.ProtoMinor, r.Host, r.ContentLength, r.TransferEncoding, r.Close, *r.URL, r.Body == http.NoBody)
	for _, k := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&text, "%s: %q\n", k, r.Header[k])
	}
	answer(w, r, &text)
}

// answer does what the path says.
func answer(w http.ResponseWriter, r *http.Request, text io.Writer) {
	h, flush := w.Header(), http.NewResponseController(w).Flush
	switch strings.TrimPrefix(r.URL.Path, "/") {
	case "echo":
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(text, "body %q %v\n", b, err)
		w.Write(b)
	case "half":
		b := make([]byte, 3)
		_, err := io.ReadFull(r.Body, b)
		fmt.Fprintf(text, "body %q %v\n", b, err)
	case "closed":
		err := r.Body.Close()
		_, err2 := r.Body.Read(make([]byte, 1))
		fmt.Fprintln(text, err, err2)
	case "late": // the body after the answer has begun
		fmt.Fprintln(w, "begun")
		flush()
		_, err := io.ReadAll(r.Body)
		fmt.Fprintln(text, errors.Is(err, http.ErrBodyReadAfterClose))
	case "big":
		n, _ := strconv.Atoi(r.URL.RawQuery)
		_, err := w.Write(bytes.Repeat([]byte("x"), n))
		fmt.Fprintln(text, err)
	case "string":
		n, err := io.WriteString(w, strings.Repeat("é", 3000))
		fmt.Fprintln(text, n, err)
	case "pieces":
		for range 300 {
			io.WriteString(w, "piece of ten ")
		}
	case "exact":
		h.Set("Content-Length", "5")
		w.Write([]byte("12345"))
	case "short":
		h.Set("Content-Length", "9")
		w.Write([]byte("12345"))
	case "long":
		h.Set("Content-Length", "3")
		_, err := w.Write([]byte("12"))
		_, err2 := w.Write([]byte("34"))
		fmt.Fprintln(text, err, err2)
	case "length": // of what HEAD would have
		h.Set("Content-Length", "1000")
	case "stream":
		for i := range 3 {
			fmt.Fprintln(w, i)
			fmt.Fprintln(text, flush())
		}
	case "flush":
		flush()
	case "flushed": // twice without anything between, and at the end
		w.Write([]byte("a"))
		flush()
		flush()
		w.Write(bytes.Repeat([]byte("b"), 5000))
		flush()
	case "status":
		n, _ := strconv.Atoi(r.URL.RawQuery)
		h.Set("Content-Type", "x/y")
		w.WriteHeader(n)
		_, err := w.Write([]byte("body"))
		fmt.Fprintln(text, err)
	case "twice":
		w.WriteHeader(201)
		w.WriteHeader(202)
	case "early":
		h.Set("Link", "</x>")
		w.WriteHeader(103)
		h.Del("Link")
		w.Write([]byte("body"))
	case "close":
		h.Set("Connection", "close")
	case "keep":
		h.Set("Connection", "keep-alive")
	case "panic":
		panic("of the test")
	case "abort":
		w.Write([]byte("lost"))
		panic(http.ErrAbortHandler)
	case "latepanic":
		w.Write([]byte("begun"))
		flush()
		panic(http.ErrAbortHandler)
	case "html":
		w.Write([]byte("<html><body>"))
	case "htmlparts":
		w.Write([]byte("<html>"))
		w.Write(bytes.Repeat([]byte("<p>"), 3000))
	case "notype":
		h["Content-Type"] = nil
		w.Write([]byte("<html>"))
	case "encoded":
		h.Set("Content-Encoding", "x")
		w.Write([]byte("<html>"))
	case "date":
		h.Set("Date", "today")
	case "values":
		h["X-A"] = []string{" one ", "two\r\nX-Evil: 1", ""}
		h["x-lower"] = []string{"v"}
		h["Not A Name"] = []string{"v"}
		h["X\r\nEvil"] = []string{"v"}
	case "after":
		h.Set("X-A", "before")
		w.WriteHeader(200)
		h.Set("X-A", "after")
		h.Set("X-B", "after")
	default:
		w.WriteHeader(404)
	}
}

func newPair(t testing.TB) *pair {
	p := &pair{newSide(t), newSide(t)}
	theirs := &http.Server{Handler: p.theirs, ErrorLog: log.New(p.theirs, "", 0), MaxHeaderBytes: 6000, ReadHeaderTimeout: time.Minute}
	ours := &Server{Handler: p.ours, ErrorLog: log.New(p.ours, "", 0), MaxHeaderBytes: 6000, ReadHeaderTimeout: time.Minute}
	p.theirs.serve(t, theirs.Serve, theirs.Close)
	p.ours.serve(t, ours.Serve, ours.Close)
	return p
}

func newSide(testing.TB) *side { return &side{} }

func (s *side) serve(t testing.TB, serve func(net.Listener) error, stop func() error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- serve(l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

// exchange sends input and ends it. It returns what the handler saw, and the answers in a form to compare.
func (s *side) exchange(t testing.TB, input []byte) (saw []seen, answers []string) {
	t.Helper()
	s.mu.Lock()
	s.seen = nil
	s.mu.Unlock()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.Write(input) // the server may close before the end of it
	conn.(*net.TCPConn).CloseWrite()
	raw, err := io.ReadAll(conn)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatalf("%q is not answered to the end: %q", input, raw)
	}
	s.mu.Lock()
	saw = slices.Clone(s.seen)
	s.mu.Unlock()
	return saw, split(raw, saw)
}

// split takes answers apart. How a body is cut into chunks does not count.
func split(raw []byte, saw []seen) (answers []string) {
	in := bufio.NewReader(bytes.NewReader(raw))
	for final := 0; ; {
		method := "GET"
		if final < len(saw) {
			method = saw[final].method
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			rest, _ := io.ReadAll(in)
			return append(answers, fmt.Sprintf("end %v %q", err, rest))
		}
		if resp.StatusCode >= 200 {
			final++
		}
		date := resp.Header.Get("Date")
		if _, err := http.ParseTime(date); err == nil {
			resp.Header.Set("Date", "a date")
		}
		body, err := io.ReadAll(resp.Body)
		answers = append(answers, fmt.Sprintf("%s length=%d coding=%v close=%v header=%v body=%q %v",
			resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Header, body, err))
	}
}

// compare sends input to both and reports differences. It returns what our handler saw.
func (p *pair) compare(t testing.TB, input []byte) []seen {
	t.Helper()
	want, wantAnswers := p.theirs.exchange(t, input)
	got, gotAnswers := p.ours.exchange(t, input)
	if len(got) != len(want) {
		t.Fatalf("%q: %d requests reach the handler, want %d", input, len(got), len(want))
	}
	for i := range got {
		if got[i].text != want[i].text {
			t.Errorf("%q: request %d is\n%s\nwant\n%s", input, i, got[i].text, want[i].text)
		}
	}
	if !slices.Equal(gotAnswers, wantAnswers) {
		t.Errorf("%q: the answers are\n%s\nwant\n%s", input, strings.Join(gotAnswers, "\n"), strings.Join(wantAnswers, "\n"))
	}
	return got
}

// request makes a request of lines.
func request(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// get and post make usual ones.
func get(path string) string { return request("GET "+path+" HTTP/1.1", "Host: example.org") }

func post(path, body string, lines ...string) string {
	return request(append([]string{"POST " + path + " HTTP/1.1", "Host: example.org", "Content-Length: " + strconv.Itoa(len(body))},
		lines...)...) + body
}

func headOf(path string) string { return request("HEAD "+path+" HTTP/1.1", "Host: example.org") }

// exchanges are what both servers are sent. Another request follows each, and shows whether the connection goes on.
var exchanges = []struct {
	name, input string
	own         bool // served here to the end
}{
	{"get", get("/none"), true},
	{"post", post("/echo", `{"model":"m"}`, "Content-Type: application/json", "Accept: */*"), true},
	{"usual headers", request("POST /echo?q=1&r=%20 HTTP/1.1", "host: 127.0.0.1:8000", "accept-encoding: gzip, deflate", "connection: keep-alive",
		"content-length: 2", "content-type: application/json", "user-agent: OpenAI/Python 1.2", "x-stainless-os: Linux",
		"authorization: Bearer sk-1") + "{}", true},
	{"repeated header", request("GET /echo HTTP/1.1", "Host: a", "X-A: 1", "x-a: 2", "Cookie: a", "Cookie: b"), true},
	{"blanks", request("GET /echo HTTP/1.1", "Host:a", "X-A: \t 1 2 \t ", "X-B:", "X-C:\t"), true},
	{"odd names", request("GET /echo HTTP/1.1", "Host: a", "!#$%&'*+-.^_`|~09aZ: 1", "x--y: 2"), true},
	{"all methods", request("PUT /echo HTTP/1.1", "Host: a") + request("DELETE /echo HTTP/1.1", "Host: a") +
		request("PATCH /echo HTTP/1.1", "Host: a") + request("OPTIONS /echo HTTP/1.1", "Host: a"), true},
	{"IPv6 host", request("GET /echo HTTP/1.1", "Host: [::1]:8000"), true},
	{"escaped target", get("/a%2fb/..//c;d?x=%zz;y"), true},
	{"two slashes", get("//echo/x"), true},
	{"length zero", post("/echo", ""), true},
	{"length with zeros", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 0003") + "abc", true},
	{"get with a body", request("GET /echo HTTP/1.1", "Host: a", "Content-Length: 3") + "abc", true},
	{"close", request("GET /none HTTP/1.1", "Host: a", "Connection: Close"), true},
	{"keep alive", request("GET /none HTTP/1.1", "Host: a", "Connection: Keep-Alive"), true},
	{"pipelined", get("/none") + post("/echo", "abc") + get("/big?9000") + post("/half", "abcdef"), true},
	{"long body", post("/echo", strings.Repeat("0123456789", 20000)), true},
	{"unread body", post("/none", strings.Repeat("0123456789", 20000)), true},
	{"half a body", post("/half", strings.Repeat("0123456789", 20000)), true},
	{"closed body", post("/closed", strings.Repeat("0123456789", 20000)), true},
	{"body after the answer", post("/late", strings.Repeat("0123456789", 20000)), true},
	{"unread with close", post("/none", strings.Repeat("0123456789", 2000), "Connection: close"), true},
	{"body that ends early", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 9") + "abc", true},
	{"unread body that ends early", request("POST /none HTTP/1.1", "Host: a", "Content-Length: 9") + "abc", true},
	{"closed body that ends early", request("POST /closed HTTP/1.1", "Host: a", "Content-Length: 9") + "abc", true},
	{"long head", request("GET /echo HTTP/1.1", "Host: a", "X-A: "+strings.Repeat("a", 5000)), true},

	{"big", get("/big?2047") + get("/big?2048") + get("/big?2049") + get("/big?1000000"), true},
	{"string", get("/string"), true},
	{"pieces", get("/pieces"), true},
	{"exact", get("/exact") + headOf("/exact"), true},
	{"short", get("/short"), true},
	{"long", get("/long"), true},
	{"stream", get("/stream") + headOf("/stream"), true},
	{"flush", get("/flush") + headOf("/flush") + get("/flushed"), true},
	{"head", headOf("/none") + headOf("/echo") + headOf("/big?9000") + headOf("/big?5") + headOf("/length") + headOf("/html"), true},
	{"statuses", get("/status?200") + get("/status?204") + get("/status?304") + get("/status?500") + get("/status?799") + headOf("/status?204"), true},
	{"twice", get("/twice"), true},
	{"early hints", get("/early"), true},
	{"handler closes", get("/close"), true},
	{"handler keeps", get("/keep"), true},
	{"panic", get("/panic"), true},
	{"panic for a status", get("/status?99"), true},
	{"abort", get("/abort"), true},
	{"late panic", get("/latepanic"), true},
	{"content types", get("/html") + get("/htmlparts") + get("/notype") + get("/encoded"), true},
	{"date", get("/date"), true},
	{"values", get("/values"), true},
	{"headers after", get("/after"), true},

	{"chunked", request("POST /echo HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", false},
	{"chunked after plain", post("/echo", "abc") + request("POST /echo HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", false},
	{"expect", post("/echo", "abc", "Expect: 100-continue"), false},
	{"unknown expectation", post("/echo", "abc", "Expect: tea"), false},
	{"HTTP/1.0", request("GET /echo HTTP/1.0"), false},
	{"HTTP/1.0 kept", request("GET /exact HTTP/1.0", "Connection: keep-alive"), false},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
	{"TLS hello", "\x16\x03\x01\x00\x05hello\r\n\r\n", false},
	{"upgrade", request("GET /echo HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket"), false},
	{"trailers", request("GET /echo HTTP/1.1", "Host: a", "TE: trailers", "Connection: TE"), false},
	{"pragma", request("GET /echo HTTP/1.1", "Host: a", "Pragma: no-cache"), false},
	{"absolute target", request("GET http://b/echo HTTP/1.1", "Host: a"), false},
	{"asterisk", request("OPTIONS * HTTP/1.1", "Host: a"), false},
	{"connect", request("CONNECT b:1 HTTP/1.1", "Host: a"), false},
	{"other method", request("PROPFIND /echo HTTP/1.1", "Host: a"), false},
	{"lower-case method", request("get /echo HTTP/1.1", "Host: a"), false},
	{"bad escape", get("/%zz"), false},
	{"target beyond ASCII", get("/é"), false},
	{"value beyond ASCII", request("GET /echo HTTP/1.1", "Host: a", "X-A: é"), false},
	{"odd host", request("GET /echo HTTP/1.1", "Host: a/b"), false},
	{"empty host", request("GET /echo HTTP/1.1", "Host:"), false},
	{"no host", request("GET /echo HTTP/1.1"), false},
	{"two hosts", request("GET /echo HTTP/1.1", "Host: a", "Host: a"), false},
	{"line ends before", "\r\n" + get("/echo"), false},
	{"line ends after a post", post("/echo", "abc") + "\r\n", false},
	{"two lengths", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 3", "Content-Length: 3") + "abc", false},
	{"two other lengths", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 3", "Content-Length: 4") + "abc", false},
	{"list of lengths", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 3, 3") + "abc", false},
	{"signed length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: +3") + "abc", false},
	{"negative length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: -3") + "abc", false},
	{"hexadecimal length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 0x3") + "abc", false},
	{"underscored length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 1_0") + "abc", false},
	{"empty length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length:") + "abc", false},
	{"huge length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999") + "abc", false},
	{"length and chunks", request("POST /echo HTTP/1.1", "Host: a", "Content-Length: 3", "Transfer-Encoding: chunked") + "0\r\n\r\n", false},
	{"chunks and length", request("POST /echo HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 3") + "0\r\n\r\n", false},
	{"odd coding", request("POST /echo HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked") + "0\r\n\r\n", false},
	{"space before a colon", request("POST /echo HTTP/1.1", "Host: a", "Content-Length : 3") + "abc", false},
	{"space before a name", request("POST /echo HTTP/1.1", " Host: a"), false},
	{"folded value", request("GET /echo HTTP/1.1", "Host: a", "X-A: 1", " 2"), false},
	{"folded length", request("POST /echo HTTP/1.1", "Host: a", "Content-Length:", " 3") + "abc", false},
	{"no colon", request("GET /echo HTTP/1.1", "Host: a", "X-A"), false},
	{"no name", request("GET /echo HTTP/1.1", "Host: a", ": 1"), false},
	{"bare line feeds", "GET /echo HTTP/1.1\nHost: a\n\n", false},
	{"one bare line feed", "GET /echo HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n", false},
	{"bare carriage return", "GET /echo HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n\r\n", false},
	{"two carriage returns", "GET /echo HTTP/1.1\r\r\nHost: a\r\n\r\n", false},
	{"NUL", request("GET /echo HTTP/1.1", "Host: a", "X-A: \x00"), false},
	{"DEL", request("GET /echo HTTP/1.1", "Host: a", "X-A: \x7f"), false},
	{"two spaces", request("GET  /echo HTTP/1.1", "Host: a"), false},
	{"space at the end", request("GET /echo HTTP/1.1 ", "Host: a"), false},
	{"tab for a space", request("GET\t/echo HTTP/1.1", "Host: a"), false},
	{"space in the target", request("GET /echo x HTTP/1.1", "Host: a"), false},
	{"no version", request("GET /echo", "Host: a"), false},
	{"odd version", request("GET /echo HTTP/1.10", "Host: a"), false},
	{"lower-case version", request("GET /echo http/1.1", "Host: a"), false},
	{"two connections", request("GET /echo HTTP/1.1", "Host: a", "Connection: close", "Connection: keep-alive"), false},
	{"connection names", request("GET /echo HTTP/1.1", "Host: a", "Connection: close, x"), false},
	{"too long a head", request("GET /echo HTTP/1.1", "Host: a", "X-A: "+strings.Repeat("a", 20000)), false},
	{"too long a line", "GET /" + strings.Repeat("a", 20000) + " HTTP/1.1\r\n", false},
	{"head that ends early", "GET /echo HTTP/1.1\r\nHost: a\r\nX-", false},
	{"line that ends early", "GET /ec", false},
	{"nothing", "", true},
	{"words", "EHLO example.org\r\n", false},
}

// TestExchanges holds our server to net/http's, answer by answer.
func TestExchanges(t *testing.T) {
	p := newPair(t)
	for _, c := range exchanges {
		t.Run(c.name, func(t *testing.T) {
			saw := p.compare(t, []byte(c.input+post("/echo", "the next", "X-Next: 1")))
			own := !slices.ContainsFunc(saw, func(s seen) bool { return s.writer != "*http1.response" })
			if len(saw) > 0 && c.own != own {
				t.Errorf("served here: %v, want %v", own, c.own)
			}
			if len(saw) == 0 && c.own && c.input != "" {
				t.Error("the handler saw nothing")
			}
			p.compare(t, []byte(c.input)) // and alone, where what ends early ends
		})
	}
}

// FuzzExchange holds our server to net/http's on any input.
func FuzzExchange(f *testing.F) {
	for _, c := range exchanges {
		f.Add([]byte(c.input))
	}
	p := newPair(f)
	f.Fuzz(func(t *testing.T, input []byte) { p.compare(t, input) })
}
