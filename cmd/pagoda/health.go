package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pagoda/config"
)

// healthCommand asks a server on this machine whether it is ready: a container's health check without a shell or curl.
// It reads the configuration of serve, so that both find the same address.
func healthCommand() *cobra.Command {
	cmd := optioned("health", "serve", "exit code 0 if the server of this configuration is ready",
		func(cfg *config.Result) error { return checkReady(cfg.Address()) })
	cmd.Hidden = true
	return cmd
}

func checkReady(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/ready", nil)
	if err != nil {
		return err
	}
	direct := http.Client{Transport: &http.Transport{}} // no proxy stands between a machine and itself
	resp, err := direct.Do(req)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("no server answers at %s: %w", req.URL.Host, op.Err)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	fmt.Println("ready")
	return nil
}
