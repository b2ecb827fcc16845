package model_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// TestReference compares random small models of all architectures and variations, with and without an adapter, with
// the decoder below, which is written from the architectures' definition in float64.
func TestReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range 24 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		d := newDecoder(random)
		t.Run(fmt.Sprintf("%d %s", i, d.Arch[0]), func(t *testing.T) {
			variants := kernels.Variants()
			r := loadRig(t, variants[i%len(variants)], checkpoint.OpenFS(d.files()), checkpoint.OpenFS(d.adapterFiles()), model.Float32)
			ids := make([]int32, 1+random.IntN(50))
			for p := range ids {
				ids[p] = random.Int32N(int32(d.Vocab))
			}
			for _, name := range []string{"", "adapter"} {
				s := r.newSeq(ids, name)
				r.prefill(s, 1+random.IntN(20))
				r.release(s)
				near(t, s.logits, d.logits(ids, name != ""), 5e-4, "%d tokens, adapter %q", len(ids), name)
			}
			if t.Failed() {
				t.Logf("%+v", d.shape)
			}
		})
	}
}

// shape is a config.json.
type shape struct {
	Arch          []string `json:"architectures"`
	Vocab         int      `json:"vocab_size"`
	Hidden        int      `json:"hidden_size"`
	Inter         int      `json:"intermediate_size"`
	Layers        int      `json:"num_hidden_layers"`
	Heads         int      `json:"num_attention_heads"`
	KVHeads       int      `json:"num_key_value_heads"`
	HeadDim       int      `json:"head_dim,omitempty"`
	MaxLen        int      `json:"max_position_embeddings"`
	Eps           float64  `json:"rms_norm_eps"`
	Act           string   `json:"hidden_act"`
	Tied          bool     `json:"tie_word_embeddings"`
	AttentionBias bool     `json:"attention_bias"`
	MLPBias       bool     `json:"mlp_bias"`
	Theta         float64  `json:"rope_theta"`
	Scaling       *scaling `json:"rope_scaling"`
}

type scaling struct {
	Type     string  `json:"rope_type"`
	Factor   float64 `json:"factor"`
	Low      float64 `json:"low_freq_factor,omitempty"`
	High     float64 `json:"high_freq_factor,omitempty"`
	Original float64 `json:"original_max_position_embeddings,omitempty"`
}

// decoder is a model in float64: weights and adapter matrices by their names, row by row.
type decoder struct {
	shape
	headDim int
	weights map[string][]float64
	shapes  map[string][]int
	random  *rand.Rand
}

const adapterRank, adapterScale = 3, 2.0

func newDecoder(random *rand.Rand) *decoder {
	pick := func(from ...int) int { return from[random.IntN(len(from))] }
	d := &decoder{random: random, weights: map[string][]float64{}, shapes: map[string][]int{}}
	d.headDim = pick(2, 4, 6, 16)
	d.KVHeads = pick(1, 2, 3)
	d.Heads = d.KVHeads * pick(1, 2, 4)
	d.shape = shape{Vocab: pick(5, 17, 64), Hidden: d.headDim * d.Heads, Inter: pick(3, 20, 33), Layers: pick(1, 2),
		Heads: d.Heads, KVHeads: d.KVHeads, MaxLen: 64, Eps: 1e-5, Act: "silu", Tied: random.IntN(2) == 0,
		Theta: float64(pick(10, 10000, 1000000))}
	d.Arch = []string{[]string{"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}[random.IntN(3)]}
	if d.Arch[0] != "Qwen2ForCausalLM" {
		d.AttentionBias = random.IntN(2) == 0
	}
	if d.Arch[0] == "LlamaForCausalLM" {
		d.MLPBias = random.IntN(2) == 0
	}
	if d.Arch[0] == "Qwen3ForCausalLM" || random.IntN(2) == 0 {
		d.HeadDim = d.headDim
		d.Hidden = pick(8, 21)
	}
	switch random.IntN(3) {
	case 0:
		d.Scaling = &scaling{Type: "linear", Factor: 1 + 5*random.Float64()}
	case 1:
		d.Scaling = &scaling{Type: "llama3", Factor: 1 + 9*random.Float64(), Low: 1, High: 4, Original: float64(pick(16, 64, 300))}
	}
	d.draw()
	return d
}

// draw makes the weights and the adapter's matrices.
func (d *decoder) draw() {
	add := func(name string, mean, deviation float64, sizes ...int) {
		n := 1
		for _, size := range sizes {
			n *= size
		}
		values := make([]float64, n)
		for i := range values {
			values[i] = float64(float32(mean + deviation*d.random.NormFloat64()))
		}
		d.weights[name], d.shapes[name] = values, sizes
	}
	linear := func(name string, out, in int, bias bool) {
		add(name+".weight", 0, 1/math.Sqrt(float64(in)), out, in)
		if bias {
			add(name+".bias", 0, 0.5, out)
		}
		add("base_model.model."+name+".lora_A.weight", 0, 1/math.Sqrt(float64(in)), adapterRank, in)
		add("base_model.model."+name+".lora_B.weight", 0, 0.3, out, adapterRank)
	}
	add("model.embed_tokens.weight", 0, 1/math.Sqrt(float64(d.Hidden)), d.Vocab, d.Hidden)
	add("model.norm.weight", 1, 0.2, d.Hidden)
	if !d.Tied {
		add("lm_head.weight", 0, 1/math.Sqrt(float64(d.Hidden)), d.Vocab, d.Hidden)
	}
	q, kv := d.Heads*d.headDim, d.KVHeads*d.headDim
	qkvBias := d.AttentionBias || d.Arch[0] == "Qwen2ForCausalLM"
	for i := range d.Layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		add(layer+"input_layernorm.weight", 1, 0.2, d.Hidden)
		add(layer+"post_attention_layernorm.weight", 1, 0.2, d.Hidden)
		if d.Arch[0] == "Qwen3ForCausalLM" {
			add(layer+"self_attn.q_norm.weight", 1, 0.2, d.headDim)
			add(layer+"self_attn.k_norm.weight", 1, 0.2, d.headDim)
		}
		linear(layer+"self_attn.q_proj", q, d.Hidden, qkvBias)
		linear(layer+"self_attn.k_proj", kv, d.Hidden, qkvBias)
		linear(layer+"self_attn.v_proj", kv, d.Hidden, qkvBias)
		linear(layer+"self_attn.o_proj", d.Hidden, q, d.AttentionBias)
		linear(layer+"mlp.gate_proj", d.Inter, d.Hidden, d.MLPBias)
		linear(layer+"mlp.up_proj", d.Inter, d.Hidden, d.MLPBias)
		linear(layer+"mlp.down_proj", d.Hidden, d.Inter, d.MLPBias)
	}
}

func (d *decoder) files() fstest.MapFS {
	config, err := json.Marshal(d.shape)
	if err != nil {
		panic(err)
	}
	return fstest.MapFS{"config.json": {Data: config}, "model.safetensors": {Data: d.safetensors("model.", "lm_head.")}}
}

func (d *decoder) adapterFiles() fstest.MapFS {
	config := fmt.Sprintf(`{"peft_type":"LORA","r":%d,"lora_alpha":%g,"target_modules":"all-linear"}`,
		adapterRank, adapterRank*adapterScale)
	return fstest.MapFS{"adapter_config.json": {Data: []byte(config)},
		"adapter_model.safetensors": {Data: d.safetensors("base_model.")}}
}

// safetensors is a file of the tensors whose names begin with one of the prefixes.
func (d *decoder) safetensors(prefixes ...string) []byte {
	header, data := map[string]any{}, []byte(nil)
	for name, values := range d.weights {
		for _, prefix := range prefixes {
			if len(name) > len(prefix) && name[:len(prefix)] == prefix {
				from := len(data)
				for _, v := range values {
					data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(v)))
				}
				header[name] = map[string]any{"dtype": "F32", "shape": d.shapes[name], "data_offsets": []int{from, len(data)}}
			}
		}
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

// logits of the token after ids.
func (d *decoder) logits(ids []int32, adapter bool) []float64 {
	var keys, values [2][][]float64 // of each layer, by position
	var x []float64
	for p, id := range ids {
		x = append([]float64(nil), d.weights["model.embed_tokens.weight"][int(id)*d.Hidden:][:d.Hidden]...)
		for i := range d.Layers {
			layer := fmt.Sprintf("model.layers.%d.", i)
			linear := func(name string, x []float64) []float64 { return d.linear(layer+name, x, adapter) }
			h := d.norm(layer+"input_layernorm", x)
			q := d.heads(layer+"self_attn.q_norm", linear("self_attn.q_proj", h), p)
			keys[i] = append(keys[i], d.heads(layer+"self_attn.k_norm", linear("self_attn.k_proj", h), p))
			values[i] = append(values[i], linear("self_attn.v_proj", h))
			addTo(x, linear("self_attn.o_proj", d.attend(q, keys[i], values[i])))
			h = d.norm(layer+"post_attention_layernorm", x)
			gate, up := linear("mlp.gate_proj", h), linear("mlp.up_proj", h)
			for j, g := range gate {
				up[j] *= g / (1 + math.Exp(-g))
			}
			addTo(x, linear("mlp.down_proj", up))
		}
	}
	head := "lm_head.weight"
	if d.Tied {
		head = "model.embed_tokens.weight"
	}
	return product(d.weights[head], d.norm("model.norm", x))
}

// product is w·x for w [len(w)/len(x), len(x)].
func product(w, x []float64) []float64 {
	out := make([]float64, len(w)/len(x))
	for i := range out {
		for k, v := range x {
			out[i] += w[i*len(x)+k] * v
		}
	}
	return out
}

func addTo(x, y []float64) {
	for i := range x {
		x[i] += y[i]
	}
}

func (d *decoder) linear(name string, x []float64, adapter bool) []float64 {
	y := product(d.weights[name+".weight"], x)
	if bias, ok := d.weights[name+".bias"]; ok {
		addTo(y, bias)
	}
	if adapter {
		lora := "base_model.model." + name
		update := product(d.weights[lora+".lora_B.weight"], product(d.weights[lora+".lora_A.weight"], x))
		for i, v := range update {
			y[i] += adapterScale * v
		}
	}
	return y
}

func (d *decoder) norm(name string, x []float64) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+d.Eps) * d.weights[name+".weight"][i]
	}
	return y
}

// heads normalises each head, if the architecture does, and turns it by its position.
func (d *decoder) heads(norm string, x []float64, position int) []float64 {
	var y []float64
	for ; len(x) > 0; x = x[d.headDim:] {
		head := x[:d.headDim]
		if _, ok := d.weights[norm+".weight"]; ok {
			head = d.norm(norm, head)
		}
		half := d.headDim / 2
		turned := make([]float64, d.headDim)
		for i := range half {
			sin, cos := math.Sincos(float64(position) * d.frequency(i))
			turned[i] = head[i]*cos - head[i+half]*sin
			turned[i+half] = head[i+half]*cos + head[i]*sin
		}
		y = append(y, turned...)
	}
	return y
}

func (d *decoder) frequency(i int) float64 {
	wave := 2 * math.Pi * math.Pow(d.Theta, float64(2*i)/float64(d.headDim)) // tokens of a full turn
	s := d.Scaling
	switch {
	case s == nil:
	case s.Type == "linear", wave > s.Original/s.Low:
		wave *= s.Factor
	case wave > s.Original/s.High:
		smooth := (s.Original/wave - s.Low) / (s.High - s.Low)
		wave /= (1-smooth)/s.Factor + smooth
	}
	return 2 * math.Pi / wave
}

// attend mixes the values of all positions, head by head.
func (d *decoder) attend(q []float64, keys, values [][]float64) []float64 {
	out := make([]float64, len(q))
	for h := range d.Heads {
		at := h / (d.Heads / d.KVHeads) * d.headDim // of the head's keys and values
		weights, sum := make([]float64, len(keys)), 0.0
		for p, key := range keys {
			dot := product(key[at:at+d.headDim], q[h*d.headDim:][:d.headDim])[0]
			weights[p] = math.Exp(dot / math.Sqrt(float64(d.headDim)))
			sum += weights[p]
		}
		for p, value := range values {
			for i := range d.headDim {
				out[h*d.headDim+i] += weights[p] / sum * value[at+i]
			}
		}
	}
	return out
}
