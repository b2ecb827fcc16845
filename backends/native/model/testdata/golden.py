"""Writes tiny random checkpoints of all families, an adapter of each, and what Hugging Face's libraries compute with them:

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python golden.py [name...]          # in this folder; without names: all

A family is one entry of CASES. Weights are bfloat16, everything is computed from them in float32: the logits of some rows
of a prompt, with and without the adapter, and the tokens that follow it greedily. Each case draws from seeds of its own,
the first of them with which greedy steps are varied and none is a close call, so that a case does not depend on the others.
"""
import json
import pathlib
import shutil
import sys
import zlib

import peft
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
    "olmo2": ("Olmo2", dict(rope_theta=1000.0)),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=3, no_rope_layer_interval=2, rope_theta=1000.0)),
}
TOKENS = 60  # of the prompt
ROWS = [0, 1, 17, 59]  # of which the logits are kept
GREEDY = 64  # tokens after the prompt
GAP = 0.005  # least difference of the two best logits of a greedy step: far above what float32 rounds
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
                noise = 1.5 * noise / p.shape[-1] ** 0.5
            p.copy_(noise.to(torch.bfloat16))


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens[None], use_cache=False).logits[0]


def kept(all_logits):
    return [[round(v, 6) for v in all_logits[row].tolist()] for row in ROWS]


def greedy(model, tokens):
    """The next tokens, each computed from all before it at once, and the smallest gap."""
    gap = float("inf")
    for _ in range(GREEDY):
        best = logits(model, tokens)[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        tokens = torch.cat([tokens, best.indices[:1]])
    return tokens[-GREEDY:].tolist(), gap


def make(family, keys):
    sizes = dict(SIZES, **keys)
    config = getattr(transformers, family + "Config")(**sizes)
    config._attn_implementation = "eager"
    model = getattr(transformers, family + "ForCausalLM")(config).eval()
    randomize(model.named_parameters())
    return model, torch.randint(3, SIZES["vocab_size"], (TOKENS,))


def write(name, family, keys):
    for attempt in range(1000):
        torch.manual_seed(zlib.crc32(name.encode()) + attempt)
        model, tokens = make(family, keys)
        following, gap = greedy(model, tokens)
        if gap >= GAP and len(set(following)) >= VARIETY:
            break
    else:
        raise RuntimeError(f"{name}: no seed will do")
    golden = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                  tokens=tokens.tolist(), rows=ROWS, logits=kept(logits(model, tokens)), greedy=following, gap=round(gap, 6))
    folder = pathlib.Path(name)
    shutil.rmtree(folder, ignore_errors=True)
    # Not model.to(bfloat16): that rounds the rotary frequencies too.
    model.save_pretrained(folder, state_dict={k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "bfloat16"  # saved as float32, which the model is
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)
    adapter = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear")).eval()
    randomize((k, p) for k, p in adapter.named_parameters() if "lora_" in k)
    adapter.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    golden["adapter_logits"] = kept(logits(adapter, tokens))
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: attempt {attempt}, gap {gap:.3g}, {len(set(following))} different tokens")


for case in sys.argv[1:] or CASES:
    write(case, *CASES[case])
