package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"pagoda/config"
)

const maxLineBytes = 1 << 20 // of what is typed or piped in

// message is a turn of the conversation.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// talker answers a conversation, piece by piece: part is called with thoughts and with text. Leaving by ctx is no error.
type talker interface {
	answer(ctx context.Context, model string, messages []message, part func(text string, thought bool)) error
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
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	go func() {
		for range interrupts {
			if !c.stopAnswer() {
				fmt.Fprintln(os.Stdout)
				os.Exit(0)
			}
		}
	}()
	return c.run(context.Background())
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
	eng, err := loadModel(cfg, log)
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
	model  string
	system string

	messages []message

	mu   sync.Mutex         // guards stop
	stop context.CancelFunc // ends the answer that is being given, nil if none is
}

// stopAnswer ends the answer that is being given and says whether there was one.
func (c *conversation) stopAnswer() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		return false
	}
	c.stop()
	return true
}

func (c *conversation) setStop(stop context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = stop
}

func (c *conversation) run(ctx context.Context) error {
	models, err := c.talker.models(ctx)
	if err != nil {
		return err
	}
	if len(models) == 0 {
		return errors.New("the server has no model")
	}
	if c.model == "" {
		c.model = models[0]
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
  /exit           leave (also Ctrl-D); Ctrl-C stops an answer
`

// command obeys lines that begin with a slash, and LlamaFactory's words exit and clear.
func (c *conversation) command(ctx context.Context, line string) (done, isCommand bool) {
	name, arg, _ := strings.Cut(line, " ")
	arg = strings.TrimSpace(arg)
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
	case name == "/model" && arg != "":
		c.model = arg
	case name == "/model":
		models, err := c.talker.models(ctx)
		if err != nil {
			fmt.Fprintln(c.out, "error:", err)
			return false, true
		}
		for _, m := range models {
			mark := " "
			if m == c.model {
				mark = "*"
			}
			fmt.Fprintln(c.out, mark, m)
		}
	case strings.HasPrefix(line, "/"):
		fmt.Fprintf(c.out, "no command %s; /help lists them\n", name)
	default:
		return false, false
	}
	return false, true
}

// say asks the model. A failed or stopped turn without any text is taken back.
func (c *conversation) say(ctx context.Context, line string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c.setStop(stop)
	defer c.setStop(nil)
	c.messages = append(c.messages, message{"user", line})
	var text strings.Builder
	thinking := false
	err := c.talker.answer(ctx, c.model, c.messages, func(piece string, thought bool) {
		if thought != thinking {
			thinking = thought
			c.hint("%s", map[bool]string{true: "\x1b[2m", false: "\x1b[0m\n"}[thought]) // dim while thinking
		}
		if thought {
			c.hint("%s", piece)
			return
		}
		text.WriteString(piece)
		fmt.Fprint(c.out, piece)
	})
	if thinking {
		c.hint("\x1b[0m")
	}
	fmt.Fprintln(c.out)
	if ctx.Err() != nil {
		err = nil // stopped by hand
	}
	if text.Len() == 0 && (err != nil || ctx.Err() != nil) {
		c.messages = c.messages[:len(c.messages)-1]
		return err
	}
	c.messages = append(c.messages, message{"assistant", text.String()})
	return err
}
