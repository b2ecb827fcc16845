package proxy

import (
	"encoding/json"
	"time"

	"pagoda/engine"
)

// Dialect is what is particular to one kind of upstream. Paths begin with a slash.
type Dialect struct {
	Name  string // "vllm"
	Title string // "vLLM", for messages

	// Fields are the names that the upstream gives to request fields of ours beyond those that OpenAI's API has; the keys
	// are our own names. A field without an entry is refused when a request sets it.
	Fields map[string]string
	// Developer says that chat templates get the role as it is; else it becomes "system" and leading system messages are
	// joined, because templates drop roles that they do not know in silence.
	Developer bool
	// MaxStops is how many stop strings the upstream takes, 0 any number.
	MaxStops int
	// Translate rewrites what clients send under names of other servers, or of older versions of this one. It changes
	// extra, a copy of Request.Extra, in place. nil changes nothing.
	Translate func(extra Extra) error
	// Refused are fields that a client must not set, because they would go around this server.
	Refused []string

	// Health answers 200 when the upstream can generate. HealthTimeout is how long it may take, and HealthMisses how many
	// misses in a row mean that it is down.
	Health        string
	HealthTimeout time.Duration
	HealthMisses  int
	// Progress are counters among the upstream's metrics that move while it computes; none: it is not told from a hang.
	Progress []string
	// Running, Waiting and KVUsage are the gauges of its load.
	Running, Waiting, KVUsage string

	// RequestIDField is the body's field for a request id by which Abort ends a request; "" if closing the connection
	// ends it at once.
	RequestIDField string
	Abort          string

	// Adapters says how adapters are loaded and named.
	Adapters AdapterDialect

	// Score is the route that scores pairs of texts, "text_1" and "text_2"; "" if there is none.
	Score string

	// TokenizeChat says that the upstream's /tokenize renders messages.
	TokenizeChat bool
}

// AdapterDialect is how an upstream handles LoRA adapters.
type AdapterDialect struct {
	Load, Unload string // routes; "": adapters are fixed at start
	// Join makes the value of "model" that chooses an adapter.
	Join func(base, adapter string) string
}

// Extra is the part of a request that no dialect of the server knows.
type Extra = map[string]json.RawMessage

// field returns the upstream's name of a field that a request sets.
func (d *Dialect) field(name string) (string, error) {
	if upstream, ok := d.Fields[name]; ok {
		return upstream, nil
	}
	return "", BadField(name, "is not supported by %s", d.Title)
}

// BadField makes an Invalid error that begins with the field's name.
func BadField(param, format string, args ...any) *engine.Error {
	return engine.BadField(param, param+" "+format, args...)
}
