// Package model computes a decoder's logits from tokens. There is one decoder; what differs between architectures is
// data, a [Spec] read from config.json and a table of weight names.
//
//	config.json ──► Spec ──► Load (weights packed once) ──► Model ──► NewKV, NewWorkspace
//	                                                                      │
//	                    Batch (one step's flat batch of tokens) ──► Workspace.Forward ──► Logits
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
