// Command pagoda is an OpenAI-compatible inference server; `pagoda help` lists what else it does.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pagoda/config"
)

// Set by the linker, see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

// errUsage marks mistakes of the command line and the configuration: exit code 2.
var errUsage = errors.New("usage")

func main() {
	err := rootCommand().Execute()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(os.Stderr, "pagoda: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "pagoda:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pagoda",
		Short: "an inference server that speaks OpenAI's API",
		Long: `Pagoda serves language models over OpenAI's HTTP API. Without a model it serves a small built-in one:

  pagoda serve                            on http://127.0.0.1:8000
  pagoda serve --model /path/checkpoint   a model of your own
  pagoda serve --model Qwen/Qwen3-0.6B    one from Hugging Face
  pagoda chat                             a conversation, without a server`,
		Version:       buildLine(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		configured("serve", "the HTTP server", serve, "api"),
		configured("chat", "a conversation in the terminal", chat),
		configured("bench", "how fast a model answers here, or a server's", benchmark),
		pullCommand(),
		flagsCommand(), versionCommand(), doctorCommand(), healthCommand(),
	)
	// Cobra itself reports unknown commands; they are mistakes of usage too.
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(fmt.Errorf("unknown command %q; pagoda help lists all", args[0]))
		}
		return nil
	}
	return root
}

// usage prints err once, each of its lines with the program's name, and marks it.
func usage(err error) error {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "pagoda:", strings.TrimSuffix(line, "\n"))
	}
	return errUsage
}

func helpCommand() *cobra.Command {
	return &cobra.Command{Use: "help [command]", Short: "what a command does, and its options",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage(fmt.Errorf("unknown command %q; pagoda help lists all", strings.Join(args, " ")))
			}
			found.InitDefaultHelpFlag() // as if the command itself had been called
			found.InitDefaultVersionFlag()
			return found.Help()
		}}
}

// configured makes a command whose arguments are options of the table: file, key=value and flags.
func configured(name, short string, run func(*config.Result) error, aliases ...string) *cobra.Command {
	return optioned(name, name, short, run, aliases...)
}

// optioned makes a command that heeds the options of the command optionsOf.
func optioned(name, optionsOf, short string, run func(*config.Result) error, aliases ...string) *cobra.Command {
	cmd := &cobra.Command{
		Use:                name + " [config.yaml] [key=value ...] [--flag value ...]",
		Aliases:            aliases,
		Short:              short,
		DisableFlagParsing: true, // package config reads them all
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(optionsOf, args, os.Environ(), checkPrompts, checkUpstreams)
			switch {
			case err != nil:
				return usage(err)
			case cfg.Help:
				return cmd.Help()
			case cfg.PrintConfig:
				for _, w := range cfg.Warnings {
					fmt.Fprintln(os.Stderr, "pagoda: warning:", w)
				}
				return cfg.Print(os.Stdout)
			}
			return run(cfg)
		},
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		fmt.Printf("%s: %s\n\nUsage:\n  pagoda %s\n", cmd.Name(), cmd.Short, cmd.Use)
		fmt.Println("\nEvery option is also PAGODA_<NAME> in the environment and a key of the YAML or JSON file.")
		fmt.Println("--print-config shows the values in effect and where they come from.")
		_ = config.PrintFlags(os.Stdout, optionsOf) // nowhere to report it
	})
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "the build", Args: noArgs, RunE: func(*cobra.Command, []string) error {
		fmt.Println(buildLine())
		return nil
	}}
}

func flagsCommand() *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{Use: "flags", Short: "every option, its default and what it does", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if markdown {
				config.Markdown(os.Stdout)
				return nil
			}
			return config.PrintFlags(os.Stdout, "")
		}}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "as the README shows them")
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("pagoda %s takes no argument %q", cmd.Name(), args[0]))
	}
	return nil
}
