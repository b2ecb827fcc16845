package proxy

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func readAll(t *testing.T, r io.Reader) ([]string, error) {
	t.Helper()
	e := newEventReader(r)
	var out []string
	for {
		data, err := e.next()
		if err != nil {
			return out, err
		}
		out = append(out, string(data))
		if len(out) > 1000 {
			t.Fatal("no end")
		}
	}
}

func TestEventReader(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, tc := range []struct {
		name, in string
		want     []string
		err      error
	}{
		{"two events", "data: a\n\ndata: b\n\n", []string{"a", "b"}, io.EOF},
		{"no space", "data:a\n\n", []string{"a"}, io.EOF},
		{"two spaces", "data:  a\n\n", []string{" a"}, io.EOF},
		{"carriage returns", "data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", []string{"a", "b", "c"}, io.EOF},
		{"several lines", "data: a\ndata: b\n\n", []string{"a\nb"}, io.EOF},
		{"empty data", "data\n\ndata:\n\n", []string{"", ""}, io.EOF},
		{"comments and other fields", ": ping\n\nevent: x\nid: 7\ndata: a\nretry: 1\ndatas: no\n\n: ping\n\n", []string{"a"}, io.EOF},
		{"a long line", "data: " + long + "\n\n", []string{long}, io.EOF},
		{"nothing", "", nil, io.EOF},
		{"half a line", "data: a\n\ndata: {\"x", []string{"a"}, io.ErrUnexpectedEOF},
		{"no empty line", "data: a\n", nil, io.ErrUnexpectedEOF},
		{"the mark without its line", "data: a\n\ndata: [DONE]", []string{"a", "[DONE]"}, io.EOF},
		{"the mark without the empty line", "data: [DONE]\n", []string{"[DONE]"}, io.EOF},
	} {
		for _, r := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{{"whole", func(r io.Reader) io.Reader { return r }}, {"byte by byte", iotest.OneByteReader}, {"data with the end", iotest.DataErrReader}} {
			if len(tc.in) > 1<<20 && r.name == "byte by byte" {
				continue // minutes under the race detector
			}
			got, err := readAll(t, r.wrap(strings.NewReader(tc.in)))
			if !equal(got, tc.want) || !errors.Is(err, tc.err) {
				t.Errorf("%s, %s: %q, %v; want %q, %v", tc.name, r.name, clipAll(got), err, clipAll(tc.want), tc.err)
			}
		}
	}
}

func TestEventReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	got, err := readAll(t, io.MultiReader(strings.NewReader("data: a\n\nda"), iotest.ErrReader(broken)))
	if !equal(got, []string{"a"}) || !errors.Is(err, broken) {
		t.Errorf("%q, %v", got, err)
	}
}

func equal(a, b []string) bool {
	return strings.Join(a, "\x00") == strings.Join(b, "\x00") && len(a) == len(b)
}

func clipAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s[:min(len(s), 40)]
	}
	return out
}

// FuzzEventReader: whatever comes in whatever pieces, the events are the same and the reader ends.
func FuzzEventReader(f *testing.F) {
	f.Add("data: a\r\ndata: b\n\n: c\n\rdata: [DONE]")
	f.Fuzz(func(t *testing.T, in string) {
		if strings.Count(in, "data") > 900 {
			return // more events than readAll takes
		}
		want, wantErr := readAll(t, strings.NewReader(in))
		got, err := readAll(t, iotest.OneByteReader(strings.NewReader(in)))
		if !equal(got, want) || !errors.Is(err, wantErr) {
			t.Errorf("%q, %v in pieces, %q, %v whole", got, err, want, wantErr)
		}
	})
}
