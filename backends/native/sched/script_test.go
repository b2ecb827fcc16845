package sched

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print into them")

// TestScripts plays testdata/*.txt. A script is a list of commands, each followed by the lines it prints:
//
//	# a comment
//	> new seqs=4 batch=16 waiting=8 block=4 blocks=8 len=64 cache
//	> add a prompt=9 from=100 max=4 n=2 tenant=x prio=1 adapter=1 salt=s promptlogits
//	> step 2
//	> step 1 draft=3 right=2
//	> finish a.1
//	> stats
//
// Prompts count upwards from "from", and the token picked after t is t+1, so that an output continues its prompt. A
// sequence that has its max tokens is finished by step. Drafts are wished for all items, as long as draft says; the first
// tokens of each, as many as right says, are those that will be picked. Every command ends in CheckIntegrity.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("run with -rewrite and review the difference; %s now prints\n%s", file, got)
			}
		})
	}
}

// play returns the script with each command followed by what it prints now.
func play(script string) string {
	var out strings.Builder
	var w world
	for _, line := range strings.SplitAfter(script, "\n") {
		if strings.HasPrefix(line, "#") || line == "\n" {
			out.WriteString(line)
		}
		if command, ok := strings.CutPrefix(line, "> "); ok {
			out.WriteString(line)
			if err := w.do(&out, strings.Fields(command)); err != nil {
				fmt.Fprintf(&out, "error: %v\n", err)
			}
			if w.sched != nil {
				if err := w.sched.CheckIntegrity(); err != nil {
					fmt.Fprintf(&out, "BROKEN: %v\n", err)
				}
			}
		}
	}
	return out.String()
}

// world is what a script acts on.
type world struct {
	sched *Scheduler
	seqs  map[string]*Seq
}

// args are a command's words "name=value" and "name".
type args map[string]string

func (a args) int(name string, otherwise int) int {
	if n, err := strconv.Atoi(a[name]); err == nil {
		return n
	}
	return otherwise
}

func (a args) has(name string) bool { _, ok := a[name]; return ok }

func (w *world) do(out *strings.Builder, words []string) error {
	a := args{}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		a[name] = value
	}
	switch words[0] {
	case "new":
		return w.new(a)
	case "add":
		return w.add(words[1], a)
	case "step":
		n := 1
		if len(words) > 1 {
			n, _ = strconv.Atoi(words[1])
		}
		for range n {
			w.step(out, a.int("draft", 0), a.int("right", 0))
		}
	case "finish":
		w.sched.Finish(w.seqs[words[1]])
	case "stats":
		fmt.Fprintf(out, "%+v\n", w.sched.Stats())
		fmt.Fprintf(out, "adapters %+v\n", w.sched.Adapters(nil))
	default:
		return fmt.Errorf("no command %q", words[0])
	}
	return nil
}

func (w *world) new(a args) (err error) {
	w.seqs = map[string]*Seq{}
	w.sched, err = New(Config{
		MaxNumSeqs: a.int("seqs", 4), MaxBatchedTokens: a.int("batch", 16), MaxWaiting: a.int("waiting", 8),
		MaxPromptLogits: a.int("logits", 1024),
		BlockSize:       a.int("block", 4), NumBlocks: a.int("blocks", 8), MaxLen: a.int("len", 64), PrefixCache: a.has("cache"),
	})
	return err
}

func (w *world) add(name string, a args) error {
	prompt := make([]int32, a.int("prompt", 1))
	for i := range prompt {
		prompt[i] = int32(a.int("from", 100) + i)
	}
	seqs, err := w.sched.Add(GroupSpec{
		Prompt: prompt, N: a.int("n", 1), MaxTokens: a.int("max", 1), Adapter: uint64(a.int("adapter", 0)),
		Salt: a["salt"], Tenant: a["tenant"], Priority: a.int("prio", 0), PromptLogits: a.has("promptlogits"),
	})
	for i, q := range seqs {
		q.Owner = name
		if len(seqs) > 1 {
			q.Owner = fmt.Sprintf("%s.%d", name, i)
		}
		w.seqs[q.Owner.(string)] = q
	}
	if errors.Is(err, ErrTooLong) {
		return fmt.Errorf("too long: %w", err)
	}
	return err
}

func (w *world) step(out *strings.Builder, numDraft, numRight int) {
	numPreempted := map[string]int{}
	for name, q := range w.seqs {
		numPreempted[name] = q.NumPreemptions
	}
	plan := w.sched.Next()
	w.draft(plan, numDraft, numRight)
	fmt.Fprintf(out, "step of %d\n", plan.NumTokens)
	for _, q := range byArrival(w.seqs) {
		if q.NumPreemptions > numPreempted[q.Owner.(string)] {
			fmt.Fprintf(out, "  preempt %v with %d tokens\n", q.Owner, len(q.Tokens))
		}
	}
	for _, it := range plan.Items {
		q := it.Seq
		kind := "prefill"
		if it.Len == 1 && it.Start >= q.NumPrompt {
			kind = "decode "
		}
		fmt.Fprintf(out, "  %s %v tokens=%d:%d blocks=%v logits=%d:%d", kind, q.Owner, it.Start, it.Start+it.Len,
			it.Blocks, it.Start+it.LogitsFrom, it.Start+it.NumRows())
		if len(it.Draft) > 0 {
			fmt.Fprintf(out, " draft=%d:%d", it.Start+it.Len, it.Start+it.NumRows())
		}
		if it.Start == q.NumCachedTokens && it.Start > 0 && q.NumOutput() == 0 {
			fmt.Fprintf(out, " cached=%d", q.NumCachedTokens)
		}
		w.sched.Update(it, picked(it, func(tokens []int32) int32 { return tokens[len(tokens)-1] + 1 })...)
		if q.NumComputed >= q.NumPrompt && q.NumOutput() >= q.MaxTokens {
			w.sched.Finish(q)
			out.WriteString(" finished")
		}
		out.WriteString("\n")
	}
}

// draft gives all items that may have one a draft of numDraft tokens, of which the first numRight are right.
func (w *world) draft(plan Plan, numDraft, numRight int) {
	if numDraft == 0 {
		return
	}
	want := make([]int, len(plan.Items))
	for i := range want {
		want[i] = numDraft
	}
	w.sched.MakeRoom(plan, want)
	for i := range plan.Items {
		it := &plan.Items[i]
		last := it.Seq.Tokens[len(it.Seq.Tokens)-1]
		for k := range int32(want[i]) {
			if int(k) < numRight {
				it.Draft = append(it.Draft, last+1+k)
			} else {
				it.Draft = append(it.Draft, -1)
			}
		}
	}
}

// picked is what a model that says next after a text picks from an item's rows: nothing, or a token and one more for
// each token of the draft that it picks too.
func picked(it Item, next func(tokens []int32) int32) (tokens []int32) {
	if !it.Samples() {
		return nil
	}
	text := slices.Clone(it.Seq.Tokens)
	for i := 0; ; i++ {
		t := next(text)
		text, tokens = append(text, t), append(tokens, t)
		if i == len(it.Draft) || it.Draft[i] != t {
			return tokens
		}
	}
}

func byArrival(seqs map[string]*Seq) []*Seq {
	list := make([]*Seq, 0, len(seqs))
	for _, q := range seqs {
		list = append(list, q)
	}
	sortByArrival(list)
	return list
}
