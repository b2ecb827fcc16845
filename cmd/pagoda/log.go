package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"pagoda/config"
)

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }

// newLogger writes to standard error: JSON, or readable lines on a terminal.
func newLogger(cfg *config.Config) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(cfg.LogLevel)
	if err != nil {
		return zerolog.Logger{}, fmt.Errorf("log_level: %w", err)
	}
	log := zerolog.New(os.Stderr)
	if cfg.LogFormat == "console" || (cfg.LogFormat == "auto" && isTerminal(os.Stderr)) {
		log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly,
			NoColor: !isTerminal(os.Stderr)})
	}
	return log.Level(level).With().Timestamp().Logger(), nil
}

func buildLine() string {
	return fmt.Sprintf("pagoda %s, commit %s, %s %s/%s", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
