// Package model computes a decoder's logits from tokens. There is one decoder; what differs between architectures is
// data, a [Spec] read from config.json and a table of weight names.
//
//	config.json ──► Spec ──► Load (weights packed once) ──► Model ──► NewKV, NewWorkspace
//	                                                                      │
//	                    Batch (one step's flat batch of tokens) ──► Workspace.Forward ──► Logits
//
// A layer is two parts, a Mixer and a FeedForward, with norms around them ([LayerSpec]). Each kind of part has a file of its
// own with two types: what it is, as data (its sizes, the names of its tensors), and its weights, which compute:
//
//	Mixer        Attention                attention.go
//	             DeltaNet                 delta.go
//	FeedForward  Dense, Experts           dense.go, experts.go
//
// A new kind implements Mixer and mixer, or FeedForward and feedForward (parts.go); nothing else knows the kinds. It lists
// its tensors, from which the weights are checked, counted and loaded, and which adapters address; its scratch, from which
// the workspace is laid out; and its cache. An architecture is a function that describes the layers to the builder
// (families.go) and a row in the table of architectures.go; what checkpoints of it look like, and what comes out, is a row in
// testdata/golden.py:
//
//	func glm4(b *builder) {
//		a, d := b.glm()
//		b.layers(func(int) LayerSpec {
//			return LayerSpec{InputNorm: "input_layernorm", Mixer: a, MixerNorm: "post_self_attn_layernorm",
//				FFNorm: "post_attention_layernorm", FF: d, FFOutNorm: "post_mlp_layernorm"}
//		})
//	}
//
// A Model is read-only once loaded. KV and Workspace belong to the one goroutine that runs the steps.
//
// Numbers: the residual stream and all sums are float32 whatever the dtype. What the dtype chooses:
//
//	dtype     weights                         input of a matrix product
//	float32   as stored where that is exact   float32
//	bfloat16  bfloat16                        rounded to bfloat16
//	float16   float16                         float32
//
// The KV cache has a dtype of its own, float32 unless asked otherwise.
package model
