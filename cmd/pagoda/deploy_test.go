package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"pagoda/config"
)

// manifest is as much of a Kubernetes object as concerns us.
type manifest struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Data map[string]string
	Spec struct {
		Selector map[string]any
		Ports    []struct {
			Name       string
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				EnableServiceLinks            *bool `yaml:"enableServiceLinks"`
				TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
				Containers                    []struct {
					Args []string
					Env  []struct {
						Name, Value string
						ValueFrom   any `yaml:"valueFrom"`
					}
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					LivenessProbe  probe `yaml:"livenessProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
					Lifecycle      struct {
						PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
					}
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
		Endpoints []struct {
			Port, Path    string
			Authorization any
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func readDeploy(t *testing.T, name string) *yaml.Decoder {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return yaml.NewDecoder(bytes.NewReader(text))
}

// TestKubernetes: what deploy/kubernetes.yaml says of us is so: options, port, probes, the list's place, the time to drain.
func TestKubernetes(t *testing.T) {
	of := map[string]manifest{}
	for dec := readDeploy(t, "kubernetes.yaml"); ; {
		var m manifest
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		of[m.Kind] = m
	}
	pod := of["Deployment"].Spec.Template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	var environ []string
	for _, e := range c.Env {
		if (e.Value == "") == (e.ValueFrom == nil) {
			t.Errorf("%s has no value, or two", e.Name)
		}
		if e.ValueFrom != nil {
			e.Value = "secret"
		}
		environ = append(environ, e.Name+"="+e.Value)
	}
	cfg, err := config.Load(c.Args[0], c.Args[1:], environ)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 || !slices.Equal(cfg.APIKey, []string{"secret"}) || cfg.UpstreamAPIKey != "secret" {
		t.Errorf("warnings %q, keys %q and %q", cfg.Warnings, cfg.APIKey, cfg.UpstreamAPIKey)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Error("the Service's name would set PAGODA_PORT, of which each start would warn")
	}
	if len(c.Ports) != 1 || c.Ports[0].ContainerPort != cfg.Port {
		t.Errorf("ports %v, we listen on %d", c.Ports, cfg.Port)
	}
	port := c.Ports[0].Name
	if c.LivenessProbe != (probe{struct{ Path, Port string }{"/health", port}}) || c.ReadinessProbe != (probe{struct{ Path, Port string }{"/ready", port}}) {
		t.Errorf("probes %v and %v", c.LivenessProbe, c.ReadinessProbe)
	}
	needed := cfg.DrainTimeout + time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second
	if grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; grace <= needed {
		t.Errorf("killed after %v, which pause and drain may take: %v", grace, needed)
	}
	dir, file := filepath.Split(cfg.UpstreamURLFile)
	mounted := ""
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Volumes {
			if m.MountPath == filepath.Clean(dir) && v.Name == m.Name {
				mounted = v.ConfigMap.Name
			}
		}
	}
	if list := of["ConfigMap"]; mounted != list.Metadata.Name || mounted == "" {
		t.Errorf("%s is of %q, the list is %q", dir, mounted, list.Metadata.Name)
	}
	urls := 0
	for line := range strings.Lines(of["ConfigMap"].Data[file]) {
		if u, err := url.Parse(strings.TrimSpace(line)); err == nil && u.Host != "" {
			urls++
		} else if !strings.HasPrefix(line, "#") {
			t.Errorf("the list has the line %q", line)
		}
	}
	service, monitor := of["Service"], of["ServiceMonitor"]
	if urls == 0 || len(service.Spec.Ports) != 1 || service.Spec.Ports[0].TargetPort != port {
		t.Errorf("%d URLs, the service's ports are %v", urls, service.Spec.Ports)
	}
	pods, chosen := fmt.Sprint(of["Deployment"].Spec.Template.Metadata.Labels), fmt.Sprint(service.Spec.Selector)
	if watched := fmt.Sprint(monitor.Spec.Selector["matchLabels"]); pods != chosen || watched != fmt.Sprint(service.Metadata.Labels) {
		t.Errorf("the pods are %s, the service chooses %s, the monitor %s", pods, chosen, watched)
	}
	if e := monitor.Spec.Endpoints; len(e) != 1 || e[0].Port != service.Spec.Ports[0].Name || e[0].Path != "/metrics" || e[0].Authorization == nil {
		t.Errorf("the monitor reads %v", e)
	}
}

// TestCompose: so is what deploy/compose.yaml says.
func TestCompose(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			Ports       []string
			Grace       string `yaml:"stop_grace_period"`
		}
	}
	if err := readDeploy(t, "compose.yaml").Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["pagoda"]
	var environ []string
	for name, value := range s.Environment {
		environ = append(environ, name+"="+value)
	}
	if len(s.Command) == 0 {
		t.Fatal("no command")
	}
	cfg, err := config.Load(s.Command[0], s.Command[1:], environ)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"8000:" + strconv.Itoa(cfg.Port)}; len(cfg.Warnings) > 0 || !slices.Equal(s.Ports, want) {
		t.Errorf("warnings %q, ports %q, want %q", cfg.Warnings, s.Ports, want)
	}
	if grace, err := time.ParseDuration(s.Grace); err != nil || grace <= cfg.DrainTimeout {
		t.Errorf("killed after %v, %v; draining may take %v", grace, err, cfg.DrainTimeout)
	}
	if want := "http://vllm:8000"; !slices.Equal(cfg.UpstreamURL, []string{want}) || file.Services["vllm"].Environment["VLLM_API_KEY"] != cfg.UpstreamAPIKey {
		t.Errorf("upstream %q with key %q", cfg.UpstreamURL, cfg.UpstreamAPIKey)
	}
}
