"""Writes tiny random checkpoints, an adapter of each, and the logits that Hugging Face's libraries compute with them:

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python golden.py          # in this folder

Weights are bfloat16, the logits are computed from them in float32.
"""
import json
import pathlib

import peft
import torch
import transformers

SIZES = dict(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
CASES = {
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, rope_theta=1000.0)),
    "qwen3-bias": ("Qwen3", dict(head_dim=8, attention_bias=True, rope_theta=1000.0)),
    # Of the four waves the first stays, the next two are blended, the last is slowed down.
    "llama-llama3": ("Llama", dict(head_dim=8, rope_parameters=dict(LLAMA3, rope_theta=100.0))),
    "llama-linear-bias": ("Llama", dict(attention_bias=True, mlp_bias=True,
                                        rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=100.0))),
}
TOKENS = 60  # of the prompt
ROWS = [0, 1, 17, 59]  # of which the logits are kept


def randomize(parameters):
    """Values that keep the size of what they multiply, so that every part of the model shows in the logits."""
    with torch.no_grad():
        for name, p in parameters:
            noise = torch.randn(p.shape)
            if "norm" in name:
                noise = 1 + 0.2 * noise
            elif p.dim() == 1:
                noise = 0.5 * noise
            else:
                noise = noise / p.shape[1] ** 0.5
            p.copy_(noise.to(torch.bfloat16))


def logits(model, tokens):
    with torch.no_grad():
        out = model(tokens[None]).logits[0]
    return [[round(v, 6) for v in out[row].tolist()] for row in ROWS]


def write(name, family, keys):
    folder = pathlib.Path(name)
    config = getattr(transformers, family + "Config")(**SIZES, **keys)
    model = getattr(transformers, family + "ForCausalLM")(config).eval()
    randomize(model.named_parameters())
    config.dtype = torch.bfloat16
    # Not model.to(bfloat16): that rounds the rotary frequencies too.
    model.save_pretrained(folder, state_dict={k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    (folder / "generation_config.json").unlink()
    tokens = torch.randint(0, SIZES["vocab_size"], (TOKENS,))
    golden = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                  tokens=tokens.tolist(), rows=ROWS, logits=logits(model, tokens))
    adapter = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear")).eval()
    randomize((k, p) for k, p in adapter.named_parameters() if "lora_" in k)
    adapter.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    golden["adapter_logits"] = logits(adapter, tokens)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


torch.manual_seed(1)
for case, (family, keys) in CASES.items():
    write(case, family, keys)
