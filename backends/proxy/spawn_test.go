package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCleanEnviron(t *testing.T) {
	got := cleanEnviron([]string{"PATH=/bin", "HOME=/h", "HF_TOKEN=t", "CUDA_VISIBLE_DEVICES=0", "VLLM_CACHE_ROOT=/c", "LC_ALL=C",
		"VLLM_PORT=tcp://10.0.0.1:8000", "VLLM_PORT_8000_TCP=x", "VLLM_SERVICE_HOST=x", "VLLM_API_KEY=old", "PROMETHEUS_MULTIPROC_DIR=/d",
		"PAGODA_API_KEY=secret", "API_KEY=secret", "AWS_SECRET_ACCESS_KEY=secret", "SGLANG_PORT=1", "SGLANG_USE_MODELSCOPE=1", "PATHS=/x"})
	want := []string{"PATH=/bin", "HOME=/h", "HF_TOKEN=t", "CUDA_VISIBLE_DEVICES=0", "VLLM_CACHE_ROOT=/c", "LC_ALL=C", "SGLANG_USE_MODELSCOPE=1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestEndedServer: what was meant for a server that has ended goes to nobody who has come to its address since, such as its own
// next start.
func TestEndedServer(t *testing.T) {
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := &httptest.Server{Listener: socket, Config: &http.Server{Handler: http.NotFoundHandler()}}
	stranger.Start()
	defer stranger.Close()
	onPort := httptest.NewServer(http.NotFoundHandler())
	defer onPort.Close()
	for _, url := range []string{"unix://" + socket.Addr().String(), onPort.URL} {
		r, err := newReplica(url, "key", &Dialect{}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.get(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s before its end: %v", url, err)
		}
		r.client.CloseIdleConnections() // the end closes them
		r.ended.Store(true)
		for _, fresh := range []bool{false, true} {
			err := r.post(t.Context(), &lifeline{}, fresh, &encoded{path: "/"}, "m", nil)
			if _, unsent := errors.AsType[*notSentError](err); !unsent || !errors.Is(err, errEnded) {
				t.Errorf("%s after its end: %v", url, err)
			}
		}
	}
}

// TestHoldPort: a port that is held can be listened on again and again, in the manner of servers, and is not free otherwise.
func TestHoldPort(t *testing.T) {
	port, release, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	isFree := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	for range 2 {
		if err := isFree(); err != unix.EADDRINUSE {
			t.Fatalf("it is free: %v", err)
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Fatal("somebody answers")
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		l.Close()
	}
	release()
}
