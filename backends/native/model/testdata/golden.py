"""Writes tiny random checkpoints of all families, an adapter of each, and what Hugging Face's libraries compute with them:

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python golden.py [name...]          # in this folder; without names: all

A family is one entry of CASES. Weights are bfloat16, everything is computed from them in float32: the logits of some rows
of a prompt, with and without the adapter, and the tokens that follow it greedily. Each case draws from seeds of its own,
the first of them with which greedy steps are varied and none is a close call, so that a case does not depend on the others.
Weights of quantized cases are those that transformers reads back from the quantized file.
"""
import json
import pathlib
import shutil
import sys
import zlib

import peft
import safetensors.torch
import torch
import transformers

SIZES = dict(
    vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6, pad_token_id=None, bos_token_id=1,
    eos_token_id=2,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
# Of the eight waves two stay, three are blended; attention is sharpened by other than the usual amount.
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5, mscale=0.9,
            mscale_all_dim=0.4)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0, 1.1, 1.5], long_factor=[1.0, 1.7, 3.1], partial_rotary_factor=0.75)
GEMMA = dict(hidden_size=24, head_dim=8, query_pre_attn_scalar=12, sliding_window=16, hidden_activation="gelu_pytorch_tanh",
             tie_word_embeddings=True)
# Heads of values share keys; the prompt is longer than the pieces of 64 tokens in which the reference takes it.
HYBRID = dict(num_hidden_layers=3, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6,
              linear_value_head_dim=5, max_position_embeddings=256, tokens=100,
              rope_parameters=dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.25, mrope_section=[1, 1, 0],
                                   mrope_interleaved=True))
MOE = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12, rope_theta=1000.0)
HYBRID_MOE = dict(HYBRID, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], tokens=70, routed=0.02,
                  num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20)
MROPE = dict(rope_type="default", rope_theta=1000.0, mrope_section=[2, 1, 1])
QWEN3_VISION = dict(depth=1, hidden_size=4, intermediate_size=4, num_heads=1, patch_size=2, out_hidden_size=16,
                    num_position_embeddings=4, deepstack_visual_indexes=[0])
LATENT = dict(kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=8, v_head_dim=10, first_k_dense_replace=1,
              num_experts_per_tok=3, moe_intermediate_size=12, n_shared_experts=2)
# By folder: the family's name in transformers, which is also that of its classes, and what its configuration has in place
# of SIZES or beyond them. Windows are shorter than the prompt; layers are as many as show how they differ.
CASES = {
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, rope_theta=1000.0)),
    "qwen3-bias": ("Qwen3", dict(head_dim=8, attention_bias=True, rope_theta=1000.0)),
    # Of the four waves the first stays, the next two are blended, the last is slowed down.
    "llama-llama3": ("Llama", dict(head_dim=8, rope_parameters=dict(LLAMA3, rope_theta=100.0))),
    "llama-linear-bias": ("Llama", dict(attention_bias=True, mlp_bias=True,
                                        rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=100.0))),
    "llama-yarn": ("Llama", dict(head_dim=16, rope_parameters=dict(YARN, rope_theta=100.0))),
    "llama-dynamic": ("Llama", dict(rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=100.0))),
    "mistral": ("Mistral", dict(head_dim=8, sliding_window=20, rope_theta=1000.0)),
    "qwen2-window": ("Qwen2", dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=13, max_window_layers=1,
                                   rope_theta=1000.0)),
    "ministral": ("Ministral", dict(head_dim=8, sliding_window=13, rope_theta=1000.0,
                                    layer_types=["full_attention", "sliding_attention"])),
    "mistral3-sees": ("Mistral3", dict(model_type="mistral", head_dim=8, sliding_window=None, rope_theta=1000.0, vision_config=dict(
        model_type="pixtral", hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, image_size=8,
        patch_size=4))),
    "gemma": ("Gemma", dict(hidden_size=24, head_dim=8, tie_word_embeddings=True)),
    "gemma2": ("Gemma2", dict(GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=2.0)),
    "gemma3": ("Gemma3Text", dict(GEMMA, num_hidden_layers=4, layer_types=None, sliding_window_pattern=3,
                                  rope_parameters=dict(full_attention=dict(rope_type="linear", factor=2.0, rope_theta=1000.0),
                                                       sliding_attention=dict(rope_type="default", rope_theta=50.0)))),
    "gemma3-sees": ("Gemma3", dict(GEMMA, sliding_window_pattern=2, vision_config=dict(
        hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4))),
    "phi3": ("Phi3", dict(rope_theta=1000.0, sliding_window=30)),
    "phi3-longrope": ("Phi3", dict(head_dim=8, hidden_size=32, rope_theta=1000.0, original_max_position_embeddings=32,
                                   rope_parameters=LONGROPE)),
    # Its 64 tokens begin short and end long.
    "phi3-crossing": ("Phi3", dict(head_dim=8, hidden_size=32, rope_theta=1000.0, original_max_position_embeddings=80,
                                   rope_parameters=LONGROPE)),
    "glm": ("Glm", dict(head_dim=8, rope_theta=1000.0)),
    "glm4": ("Glm4", dict(head_dim=8, rope_theta=1000.0)),
    "qwen3_5": ("Qwen3_5Text", dict(HYBRID, layer_types=["linear_attention", "full_attention", "linear_attention"])),
    "qwen3_5-sees": ("Qwen3_5", dict(HYBRID, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], vision_config=dict(
        hidden_size=4, intermediate_size=4, depth=1, num_heads=1, patch_size=2, out_hidden_size=16, num_position_embeddings=4))),
    "qwen3_5-moe": ("Qwen3_5MoeText", HYBRID_MOE),
    "qwen3_next": ("Qwen3Next", dict(HYBRID_MOE, norm_topk_prob=True, rope_parameters=dict(
        rope_type="default", rope_theta=100.0, partial_rotary_factor=0.25))),
    "granite": ("Granite", dict(embedding_multiplier=3.0, residual_multiplier=0.7, attention_multiplier=0.6,
                                logits_scaling=1.5, rope_theta=1000.0)),
    "mixtral": ("Mixtral", dict(num_local_experts=6, num_experts_per_tok=2, sliding_window=20, rope_theta=1000.0)),
    "qwen3-moe": ("Qwen3Moe", dict(MOE, head_dim=8, num_hidden_layers=3, norm_topk_prob=True, mlp_only_layers=[1])),
    "qwen2-moe": ("Qwen2Moe", dict(MOE, num_hidden_layers=4, decoder_sparse_step=2, shared_expert_intermediate_size=20,
                                   use_sliding_window=True, sliding_window=13, max_window_layers=3)),
    "gpt-oss": ("GptOss", dict(head_dim=8, num_local_experts=6, num_experts_per_tok=2, sliding_window=20,
                               rope_parameters=dict(YARN, truncate=False, rope_theta=100.0))),
    "glm4-moe": ("Glm4Moe", dict(head_dim=8, num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=3,
                                 moe_intermediate_size=12, n_shared_experts=2, first_k_dense_replace=1, n_group=4, topk_group=2,
                                 routed_scaling_factor=1.5, use_qk_norm=True, attention_bias=True, rope_theta=1000.0)),
    "deepseek-v2": ("DeepseekV2", dict(LATENT, q_lora_rank=None, num_key_value_heads=4, num_hidden_layers=3, n_routed_experts=8,
                                       topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=2.0,
                                       rope_parameters=dict(YARN, rope_theta=100.0))),
    "deepseek-v3": ("DeepseekV3", dict(LATENT, q_lora_rank=12, num_key_value_heads=4, num_hidden_layers=3, n_routed_experts=8,
                                       n_group=4, topk_group=2, attention_bias=True, rope_parameters=dict(YARN, rope_theta=100.0))),
    "olmoe": ("Olmoe", dict(num_experts=6, num_experts_per_tok=3, rope_theta=1000.0)),
    "granite-moe": ("GraniteMoe", dict(num_local_experts=6, num_experts_per_tok=2, embedding_multiplier=3.0,
                                       residual_multiplier=0.7, attention_multiplier=0.6, logits_scaling=1.5, rope_theta=1000.0)),
    "olmo2": ("Olmo2", dict(rope_theta=1000.0)),
    "olmo3": ("Olmo3", dict(num_hidden_layers=4, sliding_window=16, rope_theta=1000.0, rope_scaling=YARN)),
    "seed-oss": ("SeedOss", dict(head_dim=8, attention_out_bias=True, mlp_bias=True, rope_theta=1000.0)),
    "ernie4_5": ("Ernie4_5", dict(head_dim=8, use_bias=True, rope_theta=1000.0)),
    "hunyuan": ("HunYuanDenseV1", dict(head_dim=8, attention_bias=True, rope_parameters=dict(
        rope_type="dynamic", alpha=8.0, factor=1.0, rope_theta=100.0))),
    "exaone4": ("Exaone4", dict(head_dim=8, sliding_window=16, sliding_window_pattern=2, rope_theta=1000.0)),
    "qwen2_5-vl": ("Qwen2_5_VL", dict(hidden_size=32, rope_parameters=MROPE, vision_config=dict(
        depth=1, hidden_size=4, intermediate_size=4, num_heads=1, patch_size=2, out_hidden_size=32, fullatt_block_indexes=[0]))),
    "qwen3-vl": ("Qwen3VL", dict(head_dim=8, tie_word_embeddings=True, rope_parameters=dict(MROPE, mrope_interleaved=True),
                                 vision_config=QWEN3_VISION)),
    "qwen3-vl-moe": ("Qwen3VLMoe", dict(MOE, head_dim=8, rope_parameters=dict(MROPE, mrope_interleaved=True),
                                        vision_config=QWEN3_VISION)),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=3, no_rope_layer_interval=2, rope_theta=1000.0)),
    "gpt-oss-mxfp4": ("GptOss", dict(head_dim=8, hidden_size=32, intermediate_size=64, num_local_experts=4, num_experts_per_tok=2,
                                     sliding_window=20, quantized="mxfp4", rope_parameters=dict(YARN, truncate=False, rope_theta=100.0))),
    "qwen3-fp8": ("Qwen3", dict(head_dim=8, quantized="fp8", rope_theta=1000.0)),
    "deepseek-v3-fp8": ("DeepseekV3", dict(LATENT, q_lora_rank=12, num_key_value_heads=4, n_routed_experts=8, n_group=4,
                                           topk_group=2, quantized="fp8", rope_parameters=dict(YARN, rope_theta=100.0))),
}
# In these, all-linear is also the experts, which no adapter can change.
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
PACKED = dict.fromkeys(("Mixtral", "Olmoe", "Qwen3Moe", "Qwen3VLMoe", "Glm4Moe"), ATTENTION)
PACKED["Qwen3Next"] = ATTENTION + ["in_proj_qkvz", "in_proj_ba", "out_proj", "shared_expert_gate"]
PACKED |= dict.fromkeys(("DeepseekV2", "DeepseekV3"), ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"])
TOKENS = 60  # of the prompt, where the case does not say
ROWS = [0, 1, 17]  # of which the logits are kept, beside those of the last
GREEDY = 64  # tokens after the prompt
GAP = 0.005  # least difference of the two best logits of a greedy step: far above what float32 rounds
ROUTED = 0.0005  # least gap of two experts of which one is chosen, and one not, by what they are chosen by
ROUTED_ROUGHLY = 0.01  # likewise in the prompt: with a smaller one, bfloat16 chooses others
VARIETY = 8  # different tokens among them, at least


def randomize(parameters):
    """Values that keep the size of what they multiply, so that every part of the model shows in the logits."""
    with torch.no_grad():
        for name, p in parameters:
            noise = torch.randn(p.shape)
            if "norm" in name and p.dim() == 1:
                noise = 0.2 * noise + p.mean()  # 1, or 0 where the model adds 1
            elif p.dim() == 1:
                noise = 0.5 * noise
            else:
                size = 0.4 if "embed" in name else 1.5  # with larger embeddings a token is followed by itself
                noise = size * noise / p.shape[-1] ** 0.5
            p.copy_(noise.to(torch.bfloat16))


class Choices:
    """The closest choice of experts that a model made."""

    def __init__(self, model):
        self.gap = float("inf")
        for module in model.modules():
            if type(module).__name__.lower().endswith("router"):
                module.register_forward_hook(self.see)

    def see(self, router, _, out):
        values, k = out[0], router.top_k
        if hasattr(router, "e_score_correction_bias"):
            values = values.sigmoid() + router.e_score_correction_bias
        if (getattr(router, "num_group", 1) or 1) > 1:
            groups = values.view(len(values), router.num_group, -1)
            best = groups.topk(2 if hasattr(router, "e_score_correction_bias") else 1).values.sum(-1).topk(router.num_group)
            self.see_gap(best.values, router.topk_group)
            for left in best.indices[:, router.topk_group:].T:
                groups[torch.arange(len(values)), left] = float("-inf")
        self.see_gap(values.sort(descending=True).values, k)

    def see_gap(self, values, k):
        self.gap = min(self.gap, (values[:, k - 1] - values[:, k]).min().item())


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens[None], use_cache=False).logits[0]


def kept(all_logits, rows):
    return [[round(v, 6) for v in all_logits[row].tolist()] for row in rows]


def greedy(model, tokens, n):
    """The next n tokens, each computed from all before it at once, and the smallest gap."""
    gap = float("inf")
    for _ in range(n):
        best = logits(model, tokens)[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        tokens = torch.cat([tokens, best.indices[:1]])
    return tokens[-n:].tolist(), gap


def make(folder, family, keys):
    """A model, which is saved if it is quantized, and a prompt."""
    sizes = dict(SIZES, **keys)
    length = sizes.pop("tokens", TOKENS)
    sizes.pop("routed", None)
    quantized = sizes.pop("quantized", None)
    vision = sizes.pop("vision_config", None)
    if vision:  # the text model is a part of one that also sees
        tied = {k: sizes[k] for k in ("tie_word_embeddings",) if k in sizes}
        sizes = dict(tied, text_config=sizes, vision_config=vision)
        if family == "Gemma3":
            sizes["mm_tokens_per_image"] = 1
    config = getattr(transformers, family + "Config")(**sizes)
    config._attn_implementation = "eager"
    kind = "ForConditionalGeneration" if vision else "ForCausalLM"
    model = getattr(transformers, family.removesuffix("Text") + kind)(config).eval()
    randomize(model.named_parameters())
    randomize((k, b) for k, b in model.named_buffers() if "correction_bias" in k)
    if quantized:
        save(folder, model, quantized)
        read = type(model).from_pretrained(folder)
        model.load_state_dict({k: v.to(torch.float32) for k, v in read.state_dict().items()})
    return model, torch.randint(3, SIZES["vocab_size"], (length,))


def rewrite(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2) + "\n")


TILE = [4, 6]  # of FP8 weights, which have one scale


def fp8(name, weight):
    """A matrix in E4M3 with the scales of its tiles."""
    rows, cols = weight.shape
    if rows % TILE[0] or cols % TILE[1] or any(part in name for part in ("embed", "lm_head", "mlp.gate.")):
        return {name: weight}
    tiles = weight.float().reshape(rows // TILE[0], TILE[0], cols // TILE[1], TILE[1])
    scales = tiles.abs().amax((1, 3)) / 448
    codes = (tiles / scales[:, None, :, None]).reshape(rows, cols).to(torch.float8_e4m3fn)
    return {name: codes, name + "_scale_inv": scales}


def mxfp4(name, stack):
    """A stack of matrices, stored as [in, out], in E2M1 along the inputs with powers of two."""
    if stack.dim() != 3:
        return {name: stack}
    blocks = stack.float().transpose(1, 2).unflatten(2, (-1, 32))
    exponents = (blocks.abs().amax(3) / 6).log2().ceil()
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    scaled = blocks / exponents.exp2()[..., None]
    codes = (scaled.abs()[..., None] - values).abs().argmin(-1) + 8 * (scaled < 0)
    pairs = (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)
    return {name + "_blocks": pairs, name + "_scales": (exponents + 127).to(torch.uint8)}


def quantize(folder, pack, config):
    """Rewrites a checkpoint with what pack makes of each tensor."""
    tensors = {}
    for name, t in safetensors.torch.load_file(folder / "model.safetensors").items():
        tensors |= pack(name, t) if t.dim() > 1 else {name: t}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata=dict(format="pt"))
    rewrite(folder / "config.json", lambda c: c.update(quantization_config=config))


def save(folder, model, quantized=None):
    shutil.rmtree(folder, ignore_errors=True)
    # Not model.to(bfloat16): that rounds the rotary frequencies too.
    model.save_pretrained(folder, state_dict={k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    (folder / "generation_config.json").unlink()
    rewrite(folder / "config.json", lambda c: c.update(dtype="bfloat16"))  # saved as float32, which the model is
    if quantized == "fp8":
        quantize(folder, fp8, dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=TILE))
    elif quantized == "mxfp4":
        quantize(folder, mxfp4, dict(quant_method="mxfp4"))
    (folder / "model.safetensors").chmod(0o644)


def write(name, family, keys):
    folder = pathlib.Path(name)
    for attempt in range(1000):
        torch.manual_seed(zlib.crc32(name.encode()) + attempt)
        model, tokens = make(folder, family, keys)
        choices = Choices(model)
        logits(model, tokens)
        if choices.gap < keys.get("routed", ROUTED_ROUGHLY):
            continue
        following, gap = greedy(model, tokens, GREEDY)
        if gap >= GAP and len(set(following)) >= VARIETY and choices.gap >= ROUTED:
            break
    else:
        raise RuntimeError(f"{name}: no seed will do")
    rows = ROWS + [len(tokens) - 1]
    golden = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                  tokens=tokens.tolist(), rows=rows, logits=kept(logits(model, tokens), rows), greedy=following, gap=round(gap, 6))
    if not keys.get("quantized"):
        save(folder, model)
    lora = peft.LoraConfig(r=4, lora_alpha=6, target_modules=PACKED.get(family, "all-linear"),
                           exclude_modules=r".*(vision|visual|projector).*")
    adapter = peft.get_peft_model(model, lora).eval()
    choices.gap = 0
    while choices.gap < ROUTED:
        randomize((k, p) for k, p in adapter.named_parameters() if "lora_" in k)
        choices.gap = float("inf")
        golden["adapter_logits"] = kept(logits(adapter, tokens), rows)
    adapter.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    rewrite(folder / "adapter" / "adapter_config.json", lambda c: c.update(target_modules=sorted(c["target_modules"])))
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: attempt {attempt}, gap {gap:.3g}, {len(set(following))} different tokens")


# Contexts of 8,192 tokens, of which one, the needle, is there once, early: it must show in what comes after the last.
LONG = {
    "long-yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=2048, rope_theta=10000.0),
    "long-llama3": dict(LLAMA3, original_max_position_embeddings=1024, rope_theta=10000.0),
}
LENGTH, NEEDLE = 8192, 1234  # where the needle is
LONG_ROWS = [100, 2047, 8191]
SHOWS = 0.05  # least difference that the needle makes to a logit of the last row
FOLLOWING = 8


def haystack(needle):
    """The prompt, which the test makes the same way."""
    tokens, state = [], 1
    for _ in range(LENGTH):
        state = (state * 1103515245 + 12345) % 2**31
        tokens.append(4 + (state >> 16) % (SIZES["vocab_size"] - 4))
    if needle:
        tokens[NEEDLE] = 3
    return torch.tensor(tokens)


def write_long(name, rope):
    for attempt in range(1000):
        torch.manual_seed(zlib.crc32(name.encode()) + attempt)
        keys = dict(SIZES, head_dim=16, max_position_embeddings=LENGTH + FOLLOWING, rope_parameters=rope)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**keys)).eval()
        randomize(model.named_parameters())
        with torch.no_grad():  # attention that picks single tokens out
            for layer in model.model.layers:
                layer.self_attn.q_proj.weight *= 4
        tokens = haystack(needle=True)
        rows = logits(model, tokens)
        shows = (rows[-1] - logits(model, haystack(needle=False))[-1]).abs().max().item()
        if shows < SHOWS:
            continue
        following, gap = greedy(model, tokens, FOLLOWING)
        if gap >= GAP:
            break
    else:
        raise RuntimeError(f"{name}: no seed will do")
    save(pathlib.Path(name), model)
    golden = dict(torch=torch.__version__, transformers=transformers.__version__, length=LENGTH, needle=NEEDLE, shows=round(shows, 6),
                  rows=LONG_ROWS, logits=kept(rows, LONG_ROWS), greedy=following, gap=round(gap, 6))
    (pathlib.Path(name) / "long.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: attempt {attempt}, gap {gap:.3g}, the needle makes {shows:.3g}")


for case in sys.argv[1:] or [*CASES, *LONG]:
    if case in LONG:
        write_long(case, LONG[case])
    else:
        write(case, *CASES[case])
