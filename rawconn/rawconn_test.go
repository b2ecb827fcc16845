package rawconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a connection of a kind, ours on one side.
func pair(t *testing.T, network string) (ours *Conn, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		accepted.Close()
		theirs.Close()
	})
	return New(accepted), theirs
}

func each(t *testing.T, test func(t *testing.T, ours *Conn, theirs net.Conn)) {
	t.Helper()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			test(t, ours, theirs)
		})
	}
	t.Run("pipe", func(t *testing.T) { // no socket of the system
		c, theirs := net.Pipe()
		ours := New(c)
		t.Cleanup(func() {
			ours.Close()
			theirs.Close()
		})
		test(t, ours, theirs)
	})
}

// TestTransfer: what is written in pieces of all lengths, short and long, more than the system takes at once too, comes over in both
// directions.
func TestTransfer(t *testing.T) {
	each(t, func(t *testing.T, ours *Conn, theirs net.Conn) {
		var want []byte
		var pieces [][3]string
		for i, n := range []int{0, 1, 100, long / 2, long - 1, long, 8 << 20, 3} {
			p := [3]string{strings.Repeat(string(rune('a'+i)), n), strings.Repeat(string(rune('A'+i)), n/2), strings.Repeat(string(rune('0'+i)), n/3)}
			pieces = append(pieces, p)
			want = append(append(append(want, p[0]...), p[1]...), p[2]...)
		}
		for range 200 { // many short ones fill the system's buffer
			pieces = append(pieces, [3]string{strings.Repeat("x", long-10)})
			want = append(want, strings.Repeat("x", long-10)...)
		}
		sent := make(chan error, 1)
		go func() {
			for _, p := range pieces {
				n, err := ours.WriteParts([3][]byte{[]byte(p[0]), []byte(p[1]), []byte(p[2])})
				if err != nil || n != len(p[0])+len(p[1])+len(p[2]) {
					sent <- errors.Join(err, io.ErrShortWrite)
					return
				}
			}
			sent <- nil
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(theirs, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("came over changed, or %v", err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}

		go func() {
			_, err := theirs.Write(want)
			sent <- err
			theirs.Close()
		}()
		buf := make([]byte, 0, len(want))
		for i := 0; ; i++ {
			piece := make([]byte, []int{1, 1000, long}[i%3])
			n, err := ours.Read(piece)
			buf = append(buf, piece[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := <-sent; err != nil || !bytes.Equal(buf, want) {
			t.Errorf("came over changed, or %v", err)
		}
	})
}

// TestErrors: time limits, the other side's end and our own are the errors that net's connections have.
func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, ours *Conn, theirs net.Conn) {
		buf := make([]byte, 10)
		if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the time limit: %v", err)
		}
		if err := ours.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := ours.Read(buf)
			read <- err
		}()
		ours.Close()
		if err := <-read; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("closed while reading: %v", err)
		}
		if _, err := ours.Write(buf); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestBroken: a write to a connection that the other side has given up fails with the system's error.
func TestBroken(t *testing.T) {
	ours, theirs := pair(t, "unix")
	theirs.Close()
	_, err := ours.Write([]byte("x"))
	var failed *net.OpError
	if !errors.As(err, &failed) || failed.Op != "write" || errors.Unwrap(failed.Err) == nil {
		t.Errorf("%#v", err)
	}
}

// TestUntouched looks at a connection on which nothing, something, and the end has come.
func TestUntouched(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		ours, theirs := pair(t, network)
		if !ours.Untouched() {
			t.Error("touched at first")
		}
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for ours.Untouched() { // until it has come
		}
		if _, err := ours.Read(make([]byte, 1)); err != nil || !ours.Untouched() {
			t.Errorf("touched after all was read, or %v", err)
		}
		theirs.Close()
		for ours.Untouched() {
		}
	}
}
