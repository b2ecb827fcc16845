package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"pagoda/config"
	"pagoda/hub"
)

// pullCommand takes the model's id as its first argument, beside the options.
func pullCommand() *cobra.Command {
	cmd := configured("pull", "download a model from a hub", pull)
	cmd.Use = "pull ORG/NAME [key=value ...] [--flag value ...]"
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && hub.IsID(args[0]) && !strings.HasSuffix(args[0], ".yaml") && !strings.HasSuffix(args[0], ".json") {
			args = append([]string{"model_name_or_path=" + args[0]}, args[1:]...)
		}
		return run(cmd, args)
	}
	return cmd
}

// pull prints the folder of the model once it is there.
func pull(cfg *config.Result) error {
	if cfg.ModelNameOrPath == "" {
		return usage(errors.New("which model? for example: pagoda pull Qwen/Qwen3-0.6B"))
	}
	log, err := newLogger(&cfg.Config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := pullModel(ctx, &cfg.Config, cfg.ModelNameOrPath, false, log)
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "pagoda: what has come is kept; the same command goes on from there")
		return errInterrupted
	}
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

// folderOf is the folder of a checkpoint that is named by its own or by an id on a hub, which is downloaded if it is not there.
func folderOf(ctx context.Context, cfg *config.Config, name string, log zerolog.Logger) (string, error) {
	return folder(ctx, cfg, name, false, log)
}

// textFolderOf is folderOf for a model whose weights are not needed.
func textFolderOf(ctx context.Context, cfg *config.Config, name string, log zerolog.Logger) (string, error) {
	return folder(ctx, cfg, name, true, log)
}

func folder(ctx context.Context, cfg *config.Config, name string, textOnly bool, log zerolog.Logger) (string, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && !info.IsDir():
		return "", fmt.Errorf("%s is not a folder", name)
	case err == nil:
		return name, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case !hub.IsID(name):
		return "", fmt.Errorf("there is no folder %s, and it is not the id of a model on a hub", name)
	}
	dir, err := pullModel(ctx, cfg, name, textOnly, log)
	if err != nil {
		return "", fmt.Errorf("there is no folder %s: %w", name, err)
	}
	return dir, nil
}

// findModel downloads the configured model if it is one of a hub; then model_name_or_path is its folder.
func findModel(ctx context.Context, cfg *config.Config, log zerolog.Logger) error {
	if cfg.ModelNameOrPath == "" {
		return nil
	}
	dir, err := folderOf(ctx, cfg, cfg.ModelNameOrPath, log)
	if err != nil {
		return fmt.Errorf("model_name_or_path: %w", err)
	}
	if dir != cfg.ModelNameOrPath {
		cfg.HubID, cfg.ModelNameOrPath = cfg.ModelNameOrPath, dir
	}
	return nil
}

// modelRoot is where a model came from, as clients see it: its id on a hub or its folder's name.
func modelRoot(cfg *config.Config) (string, error) {
	if cfg.HubID != "" {
		return cfg.HubID, nil
	}
	abs, err := filepath.Abs(cfg.ModelNameOrPath)
	if err != nil {
		return "", fmt.Errorf("model_name_or_path: %w", err)
	}
	return filepath.Base(abs), nil
}

// pullModel shows its progress on a terminal as a bar, elsewhere in the log.
func pullModel(ctx context.Context, cfg *config.Config, id string, textOnly bool, log zerolog.Logger) (string, error) {
	o := hub.Options{Hub: hub.Hub(cfg.Hub), Cache: cfg.CacheDir, ID: id, Revision: cfg.ModelRevision, Offline: cfg.HubOffline, TextOnly: textOnly,
		Token: map[string]string{"huggingface": cfg.HFHubToken, "modelscope": cfg.MSHubToken, "modelers": cfg.OMHubToken}[cfg.Hub],
		Note:  func(message string) { log.Warn().Msg(message) }}
	if o.Cache != "" {
		abs, err := filepath.Abs(o.Cache)
		if err != nil {
			return "", fmt.Errorf("cache_dir: %w", err)
		}
		o.Cache = abs
	}
	o = o.FromEnvironment(os.Getenv)
	o.Progress = logProgress(log, id, time.Now())
	if isatty.IsTerminal(os.Stderr.Fd()) {
		o.Progress = barProgress(id)
	}
	return hub.Pull(ctx, o)
}

// logProgress tells of a download that takes time, every five seconds, and of its end.
func logProgress(log zerolog.Logger, id string, start time.Time) func(hub.Progress) {
	told, first := start, int64(-1)
	return func(p hub.Progress) {
		if first < 0 {
			first = p.Done
		}
		ended := p.Done == p.Total && time.Since(told) > 0 && told != start
		if time.Since(told) < 5*time.Second && !ended {
			return
		}
		told = time.Now()
		log.Info().Str("model", id).Int64("bytes", p.Done).Int64("of", p.Total).Int("files", p.Files).
			Float64("mb_per_s", float64(p.Done-first)/1e6/time.Since(start).Seconds()).Msg("downloading")
	}
}

func barProgress(id string) func(hub.Progress) {
	var bar *progressbar.ProgressBar
	return func(p hub.Progress) {
		if bar == nil {
			bar = progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowBytes(true),
				progressbar.OptionSetDescription(id), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
		}
		_ = bar.Set64(min(p.Done, p.Total)) // a terminal that is gone
	}
}
