// Package config holds every option of the program in one table (options.go) and fills a [Config] from it. From weak
// to strong: default, file (YAML or JSON), environment, then arguments (key=value) and flags in the order given. All
// problems are reported together, each with the place it stands in.
package config
