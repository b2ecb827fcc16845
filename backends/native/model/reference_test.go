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

// TestReference compares random small models of all dense architectures and variations, with and without an adapter, with
// the decoder below, which is written from the architectures' definition in float64.
func TestReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range 60 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		d := newDecoder(random, referenceArchitectures[i%len(referenceArchitectures)])
		t.Run(fmt.Sprintf("%d %s", i, d.arch), func(t *testing.T) {
			variants := kernels.Variants()
			variant := variants[(i+i/len(referenceArchitectures))%len(variants)]
			r := loadRig(t, variant, checkpoint.OpenFS(d.files()), checkpoint.OpenFS(d.adapterFiles()), model.Float32)
			ids := make([]int32, 1+random.IntN(50))
			for p := range ids {
				ids[p] = random.Int32N(int32(d.vocab))
			}
			for _, name := range []string{"", "adapter"} {
				s := r.newSeq(ids, name)
				s.long = r.isLong(len(ids))
				r.prefill(s, 1+random.IntN(20))
				r.release(s)
				want := d.logits(ids, name != "")
				near(t, s.logits, want, 5e-4*max(1, rootMeanSquare(want)), "%s, %d tokens, adapter %q", variant, len(ids), name)
			}
			if t.Failed() {
				t.Logf("%+v", d.config)
			}
		})
	}
}

// TestDynamicRope: with a limit beyond the checkpoint's the table is the one that the definition gives for a sequence of the
// limit's length.
func TestDynamicRope(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 8 {
		d := newDecoder(random, "LlamaForCausalLM")
		for d.rotary(0).dim == 2 { // has no such scaling
			d = newDecoder(random, "LlamaForCausalLM")
		}
		d.config["rope_scaling"] = map[string]any{"rope_type": "dynamic", "factor": 4.0}
		d.rotary(0).scaling = d.config["rope_scaling"].(map[string]any)
		for _, n := range []int{50, 64, 65, 130} {
			ids := make([]int32, n)
			for p := range ids {
				ids[p] = random.Int32N(int32(d.vocab))
			}
			dev := openDevice(t, "")
			m := loadModel(t, dev, checkpoint.OpenFS(d.files()), model.Options{DType: model.Float32, MaxLen: n})
			r := newRig(t, dev, m, 9, model.Limits{MaxTokens: 64, MaxSeqs: 1, MaxLogitRows: 1})
			s := r.newSeq(ids, "")
			r.prefill(s, 40)
			want := d.logits(ids, false)
			near(t, s.logits, want, 5e-4*max(1, rootMeanSquare(want)), "%d tokens of %+v", n, d.config)
		}
	}
}

// decoder is a model in float64: weights and adapter matrices by their names, row by row.
type decoder struct {
	arch    string
	config  map[string]any // config.json
	weights map[string][]float64
	shapes  map[string][]int
	random  *rand.Rand

	vocab, hidden, inter, layers int
	heads, kvHeads, headDim      int

	tied                      bool
	qkvBias, oBias, mlpBias   bool
	fused                     [2]bool   // projections of queries, keys and values are one; so are gate and up
	norms                     [4]string // before and after attention, before and after the feed-forward
	normPlus                  float64
	headNorms, wholeNorms     bool
	act                       func(float64) float64
	scale, softcap            float64
	embed, residual, logitDiv float64
	logitCap                  float64
	window                    func(layer int) int // 0: none
	rotary                    func(layer int) *rotary
}

// rotary is how positions turn the first dim elements of a head.
type rotary struct {
	dim         int
	interleaved bool
	theta       float64
	scaling     map[string]any
	tokens      int // of the sequence
}

const adapterRank, adapterScale = 3, 2.0

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }
func geluTanh(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

// referenceArchitectures are the dense ones.
var referenceArchitectures = []string{"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Glm4ForCausalLM", "GlmForCausalLM",
	"GraniteForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Olmo2ForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM",
	"Qwen3ForCausalLM", "SmolLM3ForCausalLM"}

func newDecoder(random *rand.Rand, arch string) *decoder {
	pick := func(from ...int) int { return from[random.IntN(len(from))] }
	coin := func() bool { return random.IntN(2) == 0 }
	d := &decoder{arch: arch, random: random, weights: map[string][]float64{}, shapes: map[string][]int{}}
	d.vocab, d.inter, d.layers = pick(5, 17, 64), pick(3, 20, 33), pick(1, 2, 3)
	d.headDim, d.kvHeads = pick(4, 6, 16), pick(1, 2, 3)
	d.heads = d.kvHeads * pick(1, 2, 4)
	d.hidden, d.tied = d.headDim*d.heads, coin()
	theta := float64(pick(10, 10000, 1000000))
	d.config = map[string]any{"architectures": []string{arch}, "vocab_size": d.vocab, "intermediate_size": d.inter,
		"num_hidden_layers": d.layers, "num_attention_heads": d.heads, "num_key_value_heads": d.kvHeads, "hidden_act": "silu",
		"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": d.tied, "rope_theta": theta}
	set := func(key string, value any) { d.config[key] = value }
	if arch != "Phi3ForCausalLM" && coin() || arch == "Qwen3ForCausalLM" || arch[0] == 'G' && arch != "GraniteForCausalLM" {
		d.hidden = pick(8, 21)
		set("head_dim", d.headDim)
	}
	set("hidden_size", d.hidden)

	// What Llama has, then what others have in its place.
	r := &rotary{dim: d.headDim, theta: theta}
	d.norms = [4]string{"input_layernorm", "", "post_attention_layernorm", ""}
	d.act, d.scale, d.embed, d.residual, d.logitDiv = silu, 1/math.Sqrt(float64(d.headDim)), 1, 1, 1
	d.window = func(int) int { return 0 }
	d.rotary = func(int) *rotary { return r }
	window := 1 + random.IntN(30)
	biased := func() bool { b := coin(); set("attention_bias", b); return b }
	part := func() {
		d.config["partial_rotary_factor"] = 0.5
		r.dim = d.headDim / 2 &^ 1
		d.config["partial_rotary_factor"] = float64(r.dim) / float64(d.headDim)
	}
	sandwich := [4]string{"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}
	gemma := func() {
		d.norms, d.normPlus, d.act, d.embed = sandwich, 1, geluTanh, math.Sqrt(float64(d.hidden))
		d.qkvBias = biased()
		d.oBias = d.qkvBias
		scalar := 2 + 20*random.Float64()
		d.scale = 1 / math.Sqrt(scalar)
		set("query_pre_attn_scalar", scalar)
		set("hidden_activation", "gelu_pytorch_tanh")
		set("sliding_window", window)
	}
	qwen := func() {
		first := random.IntN(3)
		set("use_sliding_window", coin())
		set("sliding_window", window)
		set("max_window_layers", first)
		if d.config["use_sliding_window"] == true {
			d.window = func(i int) int { return map[bool]int{true: window}[i >= first] }
		}
	}
	switch arch {
	case "Gemma2ForCausalLM":
		gemma()
		d.softcap, d.logitCap = 0.5+5*random.Float64(), 0.5+5*random.Float64()
		set("attn_logit_softcapping", d.softcap)
		set("final_logit_softcapping", d.logitCap)
		d.window = func(i int) int { return window * (1 - i%2) }
	case "Gemma3ForCausalLM":
		gemma()
		d.headNorms = true
		set("sliding_window_pattern", 2)
		d.window = func(i int) int { return window * (1 - i%2) }
		near := &rotary{dim: d.headDim, theta: float64(pick(10, 100))}
		set("rope_local_base_freq", near.theta)
		d.rotary = func(i int) *rotary { return []*rotary{near, r}[i%2] }
	case "Glm4ForCausalLM", "GlmForCausalLM":
		if arch[3] == '4' {
			d.norms = [4]string{"input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"}
		}
		d.qkvBias = biased()
		d.fused[1], r.interleaved = true, true
		part()
	case "GraniteForCausalLM":
		d.qkvBias = biased()
		d.oBias = d.qkvBias
		d.scale, d.embed, d.residual, d.logitDiv = random.Float64(), 1+9*random.Float64(), random.Float64(), 1+5*random.Float64()
		set("attention_multiplier", d.scale)
		set("embedding_multiplier", d.embed)
		set("residual_multiplier", d.residual)
		set("logits_scaling", d.logitDiv)
	case "LlamaForCausalLM":
		d.qkvBias = biased()
		d.oBias, d.mlpBias = d.qkvBias, coin()
		set("mlp_bias", d.mlpBias)
		if coin() {
			part()
		}
	case "MistralForCausalLM":
		set("sliding_window", window)
		d.window = func(int) int { return window }
	case "Olmo2ForCausalLM":
		d.qkvBias = biased()
		d.oBias = d.qkvBias
		d.headNorms, d.wholeNorms = true, true
		d.norms = [4]string{"", "post_attention_layernorm", "", "post_feedforward_layernorm"}
	case "Phi3ForCausalLM":
		d.fused = [2]bool{true, true}
		if coin() {
			set("sliding_window", window)
			d.window = func(int) int { return window }
		}
	case "Qwen2ForCausalLM":
		d.qkvBias = true
		qwen()
	case "Qwen3ForCausalLM":
		d.qkvBias = biased()
		d.oBias, d.headNorms = d.qkvBias, true
		qwen()
	case "SmolLM3ForCausalLM":
		set("no_rope_layer_interval", 2)
		d.rotary = func(i int) *rotary { return []*rotary{r, nil}[i%2] }
	}
	if arch != "Phi3ForCausalLM" {
		r.scaling = newScaling(random)
		set("rope_scaling", r.scaling)
	} else if coin() {
		r.scaling = map[string]any{"type": "longrope", "short_factor": factors(random, r.dim/2), "long_factor": factors(random, r.dim/2)}
		set("rope_scaling", r.scaling)
		set("original_max_position_embeddings", 32)
	}
	d.draw()
	return d
}

// newScaling is a rope scaling, or none.
func newScaling(random *rand.Rand) map[string]any {
	factor, original := 1+9*random.Float64(), []float64{16, 64, 300}[random.IntN(3)]
	switch random.IntN(4) {
	case 0:
		return map[string]any{"rope_type": "linear", "factor": factor}
	case 1:
		return map[string]any{"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
			"original_max_position_embeddings": original}
	case 2:
		return map[string]any{"rope_type": "yarn", "factor": factor, "beta_fast": 2 + 30*random.Float64(), "beta_slow": 0.1 + random.Float64(),
			"original_max_position_embeddings": original, "truncate": random.IntN(2) == 0}
	}
	return nil
}

func factors(random *rand.Rand, n int) (list []float64) {
	for range n {
		list = append(list, 1+4*random.Float64())
	}
	return list
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
	norm := func(name string, size int) { add(name+".weight", 1-d.normPlus, 0.2, size) }
	linear := func(name string, out, in int, bias bool) {
		add(name+".weight", 0, 1/math.Sqrt(float64(in)), out, in)
		if bias {
			add(name+".bias", 0, 0.5, out)
		}
		add("base_model.model."+name+".lora_A.weight", 0, 1/math.Sqrt(float64(in)), adapterRank, in)
		add("base_model.model."+name+".lora_B.weight", 0, 0.3, out, adapterRank)
	}
	add("model.embed_tokens.weight", 0, 1/math.Sqrt(float64(d.hidden)), d.vocab, d.hidden)
	norm("model.norm", d.hidden)
	if !d.tied {
		add("lm_head.weight", 0, 1/math.Sqrt(float64(d.hidden)), d.vocab, d.hidden)
	}
	q, kv := d.heads*d.headDim, d.kvHeads*d.headDim
	for i := range d.layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		for _, name := range d.norms {
			if name != "" {
				norm(layer+name, d.hidden)
			}
		}
		switch {
		case d.wholeNorms:
			norm(layer+"self_attn.q_norm", q)
			norm(layer+"self_attn.k_norm", kv)
		case d.headNorms:
			norm(layer+"self_attn.q_norm", d.headDim)
			norm(layer+"self_attn.k_norm", d.headDim)
		}
		if d.fused[0] {
			linear(layer+"self_attn.qkv_proj", q+2*kv, d.hidden, d.qkvBias)
		} else {
			linear(layer+"self_attn.q_proj", q, d.hidden, d.qkvBias)
			linear(layer+"self_attn.k_proj", kv, d.hidden, d.qkvBias)
			linear(layer+"self_attn.v_proj", kv, d.hidden, d.qkvBias)
		}
		linear(layer+"self_attn.o_proj", d.hidden, q, d.oBias)
		if d.fused[1] {
			linear(layer+"mlp.gate_up_proj", 2*d.inter, d.hidden, d.mlpBias)
		} else {
			linear(layer+"mlp.gate_proj", d.inter, d.hidden, d.mlpBias)
			linear(layer+"mlp.up_proj", d.inter, d.hidden, d.mlpBias)
		}
		linear(layer+"mlp.down_proj", d.hidden, d.inter, d.mlpBias)
	}
}

func (d *decoder) files() fstest.MapFS {
	config, err := json.Marshal(d.config)
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
	keys, values := make([][][]float64, d.layers), make([][][]float64, d.layers) // of each layer, by position
	var x []float64
	if r := d.rotary(0); r != nil {
		r.tokens = len(ids)
	}
	for p, id := range ids {
		x = times(append([]float64(nil), d.weights["model.embed_tokens.weight"][int(id)*d.hidden:][:d.hidden]...), d.embed)
		for i := range d.layers {
			layer := fmt.Sprintf("model.layers.%d.", i)
			linear := func(name string, x []float64) []float64 { return d.linear(layer+name, x, adapter) }
			h := d.norm(layer+d.norms[0], x)
			q, k, v := d.qkv(linear, h)
			q, k = d.turn(layer+"self_attn.q_norm", q, d.rotary(i), p), d.turn(layer+"self_attn.k_norm", k, d.rotary(i), p)
			keys[i], values[i] = append(keys[i], k), append(values[i], v)
			from := 0
			if w := d.window(i); w > 0 {
				from = max(0, p+1-w)
			}
			y := linear("self_attn.o_proj", d.attend(q, keys[i][from:], values[i][from:]))
			addTo(x, times(d.norm(layer+d.norms[1], y), d.residual))
			gate, up := d.gateUp(linear, d.norm(layer+d.norms[2], x))
			for j, g := range gate {
				up[j] *= d.act(g)
			}
			addTo(x, times(d.norm(layer+d.norms[3], linear("mlp.down_proj", up)), d.residual))
		}
	}
	head := "lm_head.weight"
	if d.tied {
		head = "model.embed_tokens.weight"
	}
	logits := times(product(d.weights[head], d.norm("model.norm", x)), 1/d.logitDiv)
	for i, v := range logits {
		if d.logitCap > 0 {
			logits[i] = d.logitCap * math.Tanh(v/d.logitCap)
		}
	}
	return logits
}

func (d *decoder) qkv(linear func(string, []float64) []float64, h []float64) (q, k, v []float64) {
	if d.fused[0] {
		all, endQ, endK := linear("self_attn.qkv_proj", h), d.heads*d.headDim, (d.heads+d.kvHeads)*d.headDim
		return all[:endQ], all[endQ:endK], all[endK:]
	}
	return linear("self_attn.q_proj", h), linear("self_attn.k_proj", h), linear("self_attn.v_proj", h)
}

func (d *decoder) gateUp(linear func(string, []float64) []float64, h []float64) (gate, up []float64) {
	if d.fused[1] {
		both := linear("mlp.gate_up_proj", h)
		return both[:d.inter], both[d.inter:]
	}
	return linear("mlp.gate_proj", h), linear("mlp.up_proj", h)
}

func times(x []float64, factor float64) []float64 {
	for i := range x {
		x[i] *= factor
	}
	return x
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

// norm normalises, if there is a norm of that name.
func (d *decoder) norm(name string, x []float64) []float64 {
	weight, ok := d.weights[name+".weight"]
	if !ok {
		return x
	}
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+1e-5) * (weight[i] + d.normPlus)
	}
	return y
}

// turn normalises queries or keys, if the architecture does, and turns each head by its position.
func (d *decoder) turn(norm string, x []float64, r *rotary, position int) []float64 {
	if d.wholeNorms {
		x = d.norm(norm, x)
	}
	var y []float64
	for ; len(x) > 0; x = x[d.headDim:] {
		head := append([]float64(nil), x[:d.headDim]...)
		if !d.wholeNorms {
			head = d.norm(norm, head)
		}
		if r != nil {
			r.turn(head, position)
		}
		y = append(y, head...)
	}
	return y
}

func (r *rotary) turn(head []float64, position int) {
	for i := range r.dim / 2 {
		a, b := i, i+r.dim/2
		if r.interleaved {
			a, b = 2*i, 2*i+1
		}
		frequency, amplitude := r.frequency(i)
		sin, cos := math.Sincos(float64(position) * frequency)
		head[a], head[b] = amplitude*(head[a]*cos-head[b]*sin), amplitude*(head[b]*cos+head[a]*sin)
	}
}

// frequency is that of a pair, and what its turned elements are multiplied by.
func (r *rotary) frequency(i int) (frequency, amplitude float64) {
	wave := 2 * math.Pi * math.Pow(r.theta, float64(2*i)/float64(r.dim)) // tokens of a full turn
	number := func(key string) float64 { v, _ := r.scaling[key].(float64); return v }
	factor, original := number("factor"), number("original_max_position_embeddings")
	switch r.scaling["rope_type"] {
	case "linear":
		return 2 * math.Pi / (wave * factor), 1
	case "dynamic": // arXiv:2309.00071, 3.3, with a length of 64 to begin with
		if stretch := float64(r.tokens) / 64; stretch > 1 {
			theta := r.theta * math.Pow(factor*stretch-factor+1, float64(r.dim)/float64(r.dim-2))
			return math.Pow(theta, -float64(2*i)/float64(r.dim)), 1
		}
		return 2 * math.Pi / wave, 1
	case "llama3":
		switch low, high := number("low_freq_factor"), number("high_freq_factor"); {
		case wave > original/low:
			wave *= factor
		case wave > original/high:
			smooth := (original/wave - low) / (high - low)
			wave /= (1-smooth)/factor + smooth
		}
		return 2 * math.Pi / wave, 1
	case "yarn":
		// The pair whose wave fits that often into the original length, as a fraction.
		pair := func(fits float64) float64 {
			return float64(r.dim) / 2 * math.Log(original/(2*math.Pi*fits)) / math.Log(r.theta)
		}
		first, last := pair(number("beta_fast")), pair(number("beta_slow"))
		if r.scaling["truncate"] == true {
			first, last = math.Floor(first), math.Ceil(last)
		}
		first, last = math.Max(first, 0), math.Min(last, float64(r.dim)-1)
		if first == last {
			last += 0.001
		}
		slow := math.Max(0, math.Min(1, (float64(i)-first)/(last-first)))
		return 2 * math.Pi / wave * (slow/factor + 1 - slow), 1 + 0.1*math.Log(factor)
	}
	length := "short_factor"
	if r.tokens > 32 {
		length = "long_factor"
	}
	if list, ok := r.scaling[length].([]float64); ok { // of 64 tokens, at first 32
		return 2 * math.Pi / (wave * list[i]), math.Sqrt(1 + math.Log(2)/math.Log(32))
	}
	return 2 * math.Pi / wave, 1
}

// attend mixes the values of the positions that are seen, head by head.
func (d *decoder) attend(q []float64, keys, values [][]float64) []float64 {
	out := make([]float64, len(q))
	for h := range d.heads {
		at := h / (d.heads / d.kvHeads) * d.headDim // of the head's keys and values
		weights, sum := make([]float64, len(keys)), 0.0
		for p, key := range keys {
			score := d.scale * product(key[at:at+d.headDim], q[h*d.headDim:][:d.headDim])[0]
			if d.softcap > 0 {
				score = d.softcap * math.Tanh(score/d.softcap)
			}
			weights[p] = math.Exp(score)
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
