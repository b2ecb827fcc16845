package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"pagoda/client"
	"pagoda/config"
	"pagoda/engine"
)

const maxLineBytes = 1 << 20 // of what is typed or piped in

// message is a turn of the conversation.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// question is what a talker answers.
type question struct {
	model    string
	messages []message
	think    *bool // enable_thinking of the chat template; nil is the template's own way
}

// talker answers a conversation, piece by piece: part is called with thoughts and with text.
type talker interface {
	answer(ctx context.Context, q question, part func(text string, thought bool)) (finish string, err error)
	models(ctx context.Context) ([]string, error)
	close()
}

// chat is a conversation in the terminal, or over a pipe: one line in, one answer out.
func chat(cfg *config.Result) error {
	cfg.LogLevel = quieter(cfg) // the terminal is for the conversation
	log, err := newLogger(&cfg.Config)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn().Msg(w)
	}
	tuneRuntime(log)
	t, err := newTalker(&cfg.Config, log)
	if err != nil {
		return err
	}
	defer t.close()
	c := &conversation{talker: t, in: os.Stdin, out: os.Stdout, tty: isTerminal(os.Stdin) && isTerminal(os.Stdout),
		model: cfg.ModelID(), system: cfg.System}
	c.dim = c.tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	left := make(chan error, 1)
	go func() { left <- c.run(context.Background()) }()
	for {
		select {
		case err := <-left:
			return err
		case <-interrupts:
			if c.interrupt() {
				continue
			}
			if c.tty {
				fmt.Println()
				return nil // a way to leave like any other
			}
			return errInterrupted
		}
	}
}

// quieter is the level asked for, or warnings only if none was.
func quieter(cfg *config.Result) string {
	if cfg.Source("log_level") == "default" {
		return zerolog.WarnLevel.String()
	}
	return cfg.LogLevel
}

func newTalker(cfg *config.Config, log zerolog.Logger) (talker, error) {
	if cfg.URL != "" {
		return newRemoteTalker(cfg)
	}
	if cfg.Proxied() {
		eng, err := connect(context.Background(), cfg, false, nil, log)
		if err != nil {
			return nil, err
		}
		return newLocalTalker(eng, cfg), nil
	}
	eng, err := loadModel(context.Background(), cfg, newMemoryBudget(), log)
	if err != nil {
		return nil, err
	}
	return newLocalTalker(eng, cfg), nil
}

// conversation reads lines and prints answers.
type conversation struct {
	talker talker
	in     io.Reader
	out    io.Writer
	tty    bool // prompts, hints and thoughts are shown
	dim    bool // thoughts are dimmed
	model  string
	system string
	think  *bool

	messages []message

	mu     sync.Mutex         // guards what follows
	stop   context.CancelFunc // ends the answer that is being given, nil if none is
	warned bool               // the latest event was an interrupt without an answer to stop
}

// interrupt ends the answer that is being given. Without one it explains how to leave, the first time, since the
// answer may just have come to its end. It is false if the user means to leave.
func (c *conversation) interrupt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		c.stop()
		return true
	}
	if !c.tty || c.warned {
		return false
	}
	c.warned = true
	c.hint("\nCtrl-C again, Ctrl-D or /exit leaves.\n> ")
	return true
}

// setStop tells how to end the answer that begins, nil when it has ended.
func (c *conversation) setStop(stop context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop, c.warned = stop, false
}

func (c *conversation) run(ctx context.Context) error {
	if err := c.choose(ctx, c.model); err != nil {
		return err
	}
	c.clear()
	c.hint("Talking to %s. /help lists commands.\n", c.model)
	lines := bufio.NewScanner(c.in)
	lines.Buffer(nil, maxLineBytes)
	for c.hint("> "); lines.Scan(); c.hint("> ") {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		if done, isCommand := c.command(ctx, line); done {
			return nil
		} else if isCommand {
			continue
		}
		if err := c.say(ctx, line); err != nil {
			if !c.tty {
				return err // a script wants to know
			}
			fmt.Fprintln(c.out, "error:", err)
		}
	}
	c.hint("\n")
	return lines.Err()
}

// choose takes the model of that name, or the first one for "". A server that does not list its models is believed to
// have any.
func (c *conversation) choose(ctx context.Context, name string) error {
	models, err := c.talker.models(ctx)
	var status *client.StatusError
	switch {
	case name != "" && errors.As(err, &status) && status.Code == http.StatusNotFound:
	case err != nil:
		return err
	case len(models) == 0:
		return errors.New("the server has no model")
	case name == "":
		name = models[0]
	case !slices.Contains(models, name):
		return fmt.Errorf("no model %s here; there is %s", name, strings.Join(models, ", "))
	}
	c.model = name
	return nil
}

func (c *conversation) hint(format string, args ...any) {
	if c.tty {
		fmt.Fprintf(c.out, format, args...)
	}
}

func (c *conversation) clear() {
	c.messages = nil
	if c.system != "" {
		c.messages = []message{{"system", c.system}}
	}
}

const chatHelp = `  /clear          forget the conversation
  /system [text]  set the system message and start over; without text: none
  /model [name]   talk to another model or adapter; without name: list them
  /think [on|off] let the model think first, or not; without either: its own way
  /exit           leave (also Ctrl-D); Ctrl-C stops an answer
`

// command obeys lines that begin with a slash, and LlamaFactory's words exit and clear.
func (c *conversation) command(ctx context.Context, line string) (done, isCommand bool) {
	name, arg, _ := strings.Cut(line, " ")
	arg = strings.TrimSpace(arg)
	var err error
	switch {
	case name == "/exit" || name == "/quit" || line == "exit":
		return true, true
	case name == "/clear" || line == "clear":
		c.clear()
		c.hint("The conversation begins anew.\n")
	case name == "/help":
		fmt.Fprint(c.out, chatHelp)
	case name == "/system":
		c.system = arg
		c.clear()
		c.hint("The conversation begins anew, %s.\n", map[bool]string{true: "without a system message",
			false: "with this system message"}[arg == ""])
	case name == "/model" && arg != "":
		err = c.choose(ctx, arg)
	case name == "/model":
		err = c.list(ctx)
	case name == "/think":
		err = c.setThink(arg)
	case strings.HasPrefix(line, "/"):
		fmt.Fprintf(c.out, "no command %s; /help lists them\n", name)
	default:
		return false, false
	}
	if err != nil {
		fmt.Fprintln(c.out, "error:", err)
	}
	return false, true
}

// list prints the models, with a mark at the chosen one.
func (c *conversation) list(ctx context.Context) error {
	models, err := c.talker.models(ctx)
	for _, m := range models {
		mark := " "
		if m == c.model {
			mark = "*"
		}
		fmt.Fprintln(c.out, mark, m)
	}
	return err
}

func (c *conversation) setThink(arg string) error {
	switch on := arg == "on"; arg {
	case "on", "off":
		c.think = &on
	case "":
		c.think = nil
	default:
		return fmt.Errorf("/think on, /think off or /think, not %q", arg)
	}
	return nil
}

// say asks the model. A failed or stopped turn without any text is taken back.
func (c *conversation) say(ctx context.Context, line string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c.setStop(stop)
	defer c.setStop(nil)
	c.messages = append(c.messages, message{"user", line})
	var text strings.Builder
	p := &printer{c: c}
	finish, err := c.talker.answer(ctx, question{c.model, c.messages, c.think}, func(piece string, thought bool) {
		p.print(piece, thought)
		if !thought {
			text.WriteString(piece)
		}
	})
	p.end()
	switch {
	case ctx.Err() != nil:
		err = nil // stopped by hand
	case err == nil && finish == string(engine.FinishLength):
		c.hint("(cut off: max_tokens, or the model's context is full)\n")
	}
	if text.Len() == 0 && (err != nil || ctx.Err() != nil) {
		c.messages = c.messages[:len(c.messages)-1]
		return err
	}
	c.messages = append(c.messages, message{"assistant", text.String()})
	return err
}

// printer prints one answer: thoughts on a terminal only, dim and without the empty lines around them.
type printer struct {
	c        *conversation
	thinking bool
	began    bool // something was printed
}

func (p *printer) print(piece string, thought bool) {
	if thought && !p.c.tty {
		return
	}
	if thought != p.thinking {
		p.thinking = thought
		if thought {
			p.style("\x1b[2m")
		} else {
			p.style("\x1b[0m")
			p.c.hint("\n")
			p.began = false
		}
	}
	if !p.began {
		if piece = strings.TrimLeft(piece, "\n"); piece == "" {
			return
		}
		p.began = true
	}
	fmt.Fprint(p.c.out, piece)
}

func (p *printer) style(escape string) {
	if p.c.dim {
		fmt.Fprint(p.c.out, escape)
	}
}

// end closes the line.
func (p *printer) end() {
	if p.thinking {
		p.style("\x1b[0m")
	}
	if p.began || !p.c.tty {
		fmt.Fprintln(p.c.out)
	}
}
