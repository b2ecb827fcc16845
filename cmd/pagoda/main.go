// Command pagoda is an OpenAI-compatible inference server; `pagoda help` lists what else it does.
package main

import (
	"errors"
	"fmt"
	"os"

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
		Use:           "pagoda",
		Short:         "an inference server that speaks OpenAI's API",
		Long:          "Pagoda serves language models over OpenAI's HTTP API. Without a model it serves a small built-in one.",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(
		configured("serve", "the HTTP server", serve, "api"),
		configured("chat", "a conversation in the terminal", chat),
		configured("bench", "how fast a model answers here, or a server's", benchmark),
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

// usage prints err once and marks it.
func usage(err error) error {
	fmt.Fprintln(os.Stderr, "pagoda:", err)
	return errUsage
}

// configured makes a command whose arguments are options of the table: file, key=value and flags.
func configured(name, short string, run func(*config.Result) error, aliases ...string) *cobra.Command {
	return &cobra.Command{
		Use:                name + " [config.yaml] [key=value ...] [--flag value ...]",
		Aliases:            aliases,
		Short:              short,
		DisableFlagParsing: true, // package config reads them all
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(name, args, os.Environ())
			switch {
			case err != nil:
				return usage(err)
			case cfg.Help:
				fmt.Printf("%s: %s\n\nUsage:\n  pagoda %s\n", cmd.Name(), cmd.Short, cmd.Use)
				fmt.Println("\nEvery option is also PAGODA_<NAME> in the environment and a key of the YAML or JSON file.")
				return config.PrintFlags(os.Stdout, name)
			case cfg.PrintConfig:
				return cfg.Print(os.Stdout)
			}
			return run(cfg)
		},
	}
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
