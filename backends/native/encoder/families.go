package encoder

import (
	"maps"
	"slices"

	"pagoda/kernels"
)

// family is how encoders of one kind are laid out: what config.json calls their sizes, and what their weights are called.
type family struct {
	base    string            // what names of weights begin with, but for those of heads; a checkpoint may leave it out
	keys    map[string]string // config.json's words for those of spec
	roberta bool              // positions begin behind the padding token's id, pairs have two separators between them
	types   bool              // the two texts of a pair have embeddings of their own
	// Norms come before what they are for, and one at the end, in place of behind the sums.
	preNorm bool
	gated   bool // feed-forward layers have a gate, in one matrix with the inputs

	words, positions, embedNorm, final string // "": there is none
	layer                              string // what the names of layer %d's weights begin with
	qkv                                []string
	out, up, down, mixNorm, ffNorm     string
	relative                           string // biases by distance, shared by all layers
	head                               [2]string
	headAct                            kernels.Activation
	headNorm                           string
	unused                             []string // what names of weights begin with that have no effect on embeddings

	// defaults are what config.json need not say.
	defaults func(*spec)
}

var bert = &family{
	base: "bert.", types: true, words: "embeddings.word_embeddings", positions: "embeddings.position_embeddings",
	embedNorm: "embeddings.LayerNorm", layer: "encoder.layer.%d.",
	qkv: []string{"attention.self.query", "attention.self.key", "attention.self.value"}, out: "attention.output.dense",
	mixNorm: "attention.output.LayerNorm", up: "intermediate.dense", down: "output.dense", ffNorm: "output.LayerNorm",
	head: [2]string{"bert.pooler.dense", "classifier"}, headAct: kernels.Tanh, unused: []string{"cls.", "pooler.", "bert.pooler."},
}

var roberta = func() *family {
	f := *bert
	f.base, f.roberta = "roberta.", true
	f.head, f.unused = [2]string{"classifier.dense", "classifier.out_proj"}, []string{"lm_head.", "pooler.", "roberta.pooler."}
	return &f
}()

// mpnet has biases by distance beside its positions. Source: Song et al. 2020, arXiv:2004.09297.
var mpnet = func() *family {
	f := *roberta
	f.base, f.types, f.relative = "mpnet.", false, "encoder.relative_attention_bias"
	f.qkv, f.out = []string{"attention.attn.q", "attention.attn.k", "attention.attn.v"}, "attention.attn.o"
	f.mixNorm, f.unused = "attention.LayerNorm", []string{"lm_head.", "pooler.", "mpnet.pooler."}
	return &f
}()

var distilbert = &family{
	base:  "distilbert.",
	keys:  map[string]string{"hidden_size": "dim", "intermediate_size": "hidden_dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "hidden_act": "activation"},
	words: "embeddings.word_embeddings", positions: "embeddings.position_embeddings", embedNorm: "embeddings.LayerNorm",
	layer: "transformer.layer.%d.", qkv: []string{"attention.q_lin", "attention.k_lin", "attention.v_lin"}, out: "attention.out_lin",
	mixNorm: "sa_layer_norm", up: "ffn.lin1", down: "ffn.lin2", ffNorm: "output_layer_norm",
	head: [2]string{"pre_classifier", "classifier"}, headAct: kernels.ReLU, unused: []string{"vocab_"},
}

// modernBERT has rotary positions and windows. Source: Warner et al. 2024, arXiv:2412.13663.
var modernBERT = &family{
	base: "model.", keys: map[string]string{"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps"}, preNorm: true, gated: true,
	words: "embeddings.tok_embeddings", embedNorm: "embeddings.norm", final: "final_norm", layer: "layers.%d.",
	qkv: []string{"attn.Wqkv"}, out: "attn.Wo", mixNorm: "attn_norm", up: "mlp.Wi", down: "mlp.Wo", ffNorm: "mlp_norm",
	head: [2]string{"head.dense", "classifier"}, headAct: kernels.GELU, headNorm: "head.norm", unused: []string{"head.", "decoder."},
	defaults: func(s *spec) {
		s.Eps, s.AttentionBias, s.MLPBias, s.NormBias, s.HeadBias = 1e-5, false, false, false, false
	},
}

// architecture is what the name of one of transformers' classes means.
type architecture struct {
	*family
	labels bool
}

var architectures = func() map[string]architecture {
	all := map[string]architecture{}
	for f, names := range map[*family][]string{bert: {"Bert"}, roberta: {"Roberta", "Camembert", "XLMRoberta"}, mpnet: {"MPNet"},
		distilbert: {"DistilBert"}, modernBERT: {"ModernBert"}} {
		for _, name := range names {
			all[name+"Model"], all[name+"ForMaskedLM"] = architecture{f, false}, architecture{f, false}
			all[name+"ForSequenceClassification"] = architecture{f, true}
		}
	}
	return all
}()

// Architectures lists the encoders that the package serves, as config.json names them.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }
