package fakeupstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"encoding/json"
)

// Main is the program: the dialect, then the command line of that server. Flags of ours begin with --fake-:
//
//	--fake-fail            writes two lines and ends with 1
//	--fake-never-ready     listens, and /health answers 503 for ever
//	--fake-orphan FILE     starts a process that outlives it and writes its number there
//	--fake-daemon FILE     one in a session of its own, whose parent has ended
//	--fake-stranger FILE   one that does not have the environment either
//	--fake-zombie FILE     one that ends when the file says "gone"
//	--fake-shout N         writes N MB without an end of line before it listens
//	--fake-silent          closes its standard output and standard error once it listens
//	--fake-mute            accepts connections and never answers
//	--fake-loses-packets   from SIGUSR1 to SIGUSR2, as if the network were cut
//	--fake-health-ms N     /health takes that long
//	--fake-chunk-ms N      each word takes that long
//	--fake-close-reused    see CloseReused
//	--fake-stubborn        does not end by SIGTERM
func Main(args []string) int {
	flags := parse(args[1:])
	if flags.has("--fake-fail") {
		fmt.Fprintln(os.Stderr, "INFO loading")
		fmt.Fprintln(os.Stderr, "ValueError: Free memory on device is less than desired")
		return 1
	}
	name := flags.value("--served-model-name")
	if name == "" {
		name = "fake"
	}
	s := New(args[0], name, flags.adapters()...)
	s.Exit = os.Exit
	s.HealthDelay, s.ChunkDelay = flags.ms("--fake-health-ms"), flags.ms("--fake-chunk-ms")
	s.Unhealthy.Store(flags.has("--fake-never-ready"))
	s.Key = os.Getenv("VLLM_API_KEY")
	if config := flags.value("--config"); config != "" {
		s.Key, s.AdminKey = keysOf(config)
	}
	if file := flags.value("--fake-orphan"); file != "" {
		orphan := exec.Command("/bin/sleep", "1000")
		if err := orphan.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(orphan.Process.Pid)), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := leave(flags); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shout(flags.number("--fake-shout"))
	l, err := flags.listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	srv := &http.Server{Handler: s}
	if flags.has("--fake-close-reused") {
		CloseReused(srv)
	}
	if flags.has("--fake-mute") {
		srv.Handler = mute{}
	}
	if flags.has("--fake-loses-packets") {
		l = losePackets(l)
	}
	go func() {
		<-stop
		if flags.has("--fake-stubborn") {
			return
		}
		srv.Close()
	}()
	fmt.Printf("listening %s\n", l.Addr())
	if flags.has("--fake-silent") {
		os.Stdout.Close()
		os.Stderr.Close()
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// CloseReused makes srv close each connection at its second request, without a word: to a client that is what a connection
// looks like that was closed while it was idle.
func CloseReused(srv *http.Server) {
	type key struct{}
	next := srv.Handler
	srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, key{}, &atomic.Bool{})
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if used := r.Context().Value(key{}).(*atomic.Bool); used.Swap(true) {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

// flagList is a command line as name to values.
type flagList map[string][]string

func parse(args []string) flagList {
	f, name := flagList{}, ""
	for _, a := range args {
		if strings.HasPrefix(a, "--") {
			name = a
			f[name] = []string{}
		} else {
			f[name] = append(f[name], a)
		}
	}
	return f
}

func (f flagList) has(name string) bool { _, ok := f[name]; return ok }

func (f flagList) value(name string) string {
	if v := f[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (f flagList) number(name string) int {
	n, _ := strconv.Atoi(f.value(name)) // absent is 0
	return n
}

func (f flagList) ms(name string) time.Duration {
	return time.Duration(f.number(name)) * time.Millisecond
}

func (f flagList) adapters() []string {
	var names []string
	for _, text := range slices.Concat(f["--lora-modules"], f["--lora-paths"]) {
		var a struct {
			Name     string
			LoRAName string `json:"lora_name"`
		}
		if json.Unmarshal([]byte(text), &a) == nil {
			names = append(names, a.Name+a.LoRAName)
		}
	}
	return names
}

func (f flagList) listen() (net.Listener, error) {
	if path := f.value("--uds"); path != "" {
		return net.Listen("unix", path)
	}
	var c net.ListenConfig
	c.SetMultipathTCP(false) // as Python's servers
	return c.Listen(context.Background(), "tcp", net.JoinHostPort(f.value("--host"), f.value("--port")))
}

func keysOf(config string) (key, admin string) {
	data, err := os.ReadFile(config)
	if err != nil {
		return "unreadable", "unreadable"
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "api-key":
			key = value
		case "admin-api-key":
			admin = value
		}
	}
	return key, admin
}
