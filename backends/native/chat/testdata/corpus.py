"""Renders and tokenizes 10,000 made-up conversations for every family's template with transformers, and keeps a hash of each.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6 \
        sentencepiece==0.2.3 tiktoken==0.14.0 protobuf==7.36.2
    /tmp/venv/bin/python corpus.py

Writes corpus.json, from which corpus_test.go makes the same conversations (see there and below: both read the same
pseudo-random numbers in the same order), and corpus/FAMILY: four bytes of SHA-256 for each, of the text and the ids or of the error.
"""

import datetime
import hashlib
import json
import pathlib
import sys

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
TEMPLATES = HERE.parents[1] / "jinja" / "testdata" / "templates"
KINDS = HERE.parents[1] / "token" / "testdata" / "kinds"
COUNT = 10_000

CHATML = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"]
INST = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
# Template, kind of tokenizer, control tokens that it gets besides its own.
FAMILIES = {
    "chatml": ("qwen2", CHATML),
    "qwen35": ("qwen2", CHATML),
    "olmo": ("gpt2", CHATML[:2]),
    "smollm3": ("json", CHATML[:2]),
    "llama": ("llama3", HEADERS),
    "mistral": ("mistral", INST),
    "mistral3": ("tekken", ["[ARGS]", "[THINK]", "[/THINK]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]),
    "gemma": ("gemma", ["<start_of_image>"]),
    "deepseek": ("json", ["<|User|>", "<|Assistant|>", "<|calls|>", "<|call|>", "<|sep|>", "<|end|>", "<|calls_end|>", "<think>", "</think>"]),
    "phi": ("llama", ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>"]),
    "glm": ("gpt2", ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]),
    "harmony": ("generic-unigram", ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"]),
    "command": ("llama-legacy", ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"]),
    "granite": ("generic-bpe", ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>"]),
}

PIECES = [
    "Hello", " world", "\n", "\n\n", "  ", " ", "\t", "\r\n", ".", "?", "!", ", ", "the license", " of ", "and", "1", "42", " 3.14", "'s", "don't",
    "é", "ü", "ß", "naïve", "日本語", "中文。", "한국어", "Привет", "שלום", "مرحبا", "ไทย", "👍", "👍🏽", "👨‍👩‍👧", "🇩🇪", "e\u0301", "\u00a0", "\u3000", "\u200b", "\u2028",
    "İ", "ǅ", "ﬁ", "½", "Ⅳ", "\x00", "\x1f", "\x7f", "\ufeff", "\U0001f9ff", "<", ">", "&amp;", "<b>", "</b>", '"', "'", "\\", "\\n", "`", "```py\nx = {1: [2]}\n```",
    "{", "}", "{{ x }}", "{% if %}", "{# c #}", "%s %d", "{0}", "$", "|", "[", "]", "_", "▁", "##", "Ġ",
    "<think>", "</think>", "<think>\nhm\n</think>\n\n", "<|im_start|>", "<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<s>", "</s>", "[INST]", "[/INST]",
    "<|eot_id|>", "<|start_header_id|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<|channel|>", "<|message|>", "<|end|>", "<|user|>", "<｜User｜>", "<|start_of_role|>",
    "<tool_call>", "</tool_call>", "<tool_response>", "[TOOL_CALLS]", "/no_think", "/think", "None", "True", "null", "0x41", "<0x41>", "aaaaaaaa", "Zürich", "x" * 40, "word " * 12,
]
NAMES = ["get_weather", "search", "f", "zeit.im-Jahr", "größe", "a", "Ab_9"]
TYPES = ["string", "integer", "number", "boolean", "array", "object", ["string", "null"]]
FLOATS = ["1.0", "2.5", "-0.0", "1e-07", "1e+22", "0.1", "123456789.125", "1e300", "5e-324", "3.50"]


class Numbers:
    """SplitMix64 (Steele, Lea and Flood 2014)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return (z ^ z >> 31) % n


def text(r):
    n = r.below(6)
    if r.below(40) == 0:
        n = 120
    return "".join(PIECES[r.below(len(PIECES))] for _ in range(n))


def mapping(r, n, make):
    first = r.below(len(NAMES))
    return {NAMES[(first + i) % len(NAMES)]: make(r) for i in range(n)}


def value(r, depth=0):
    match r.below(8 if depth < 2 else 6):
        case 0 | 1:
            return text(r)
        case 2:
            return r.below(2000) - 1000
        case 3:
            return json.loads(FLOATS[r.below(len(FLOATS))])
        case 4:
            return r.below(2) == 0
        case 5:
            return None
        case 6:
            return [value(r, depth + 1) for _ in range(r.below(3))]
        case 7:
            return mapping(r, r.below(3), lambda r: value(r, depth + 1))


def tool(r):
    name = NAMES[r.below(len(NAMES))]
    function = {"name": name, "description": text(r)}
    properties = mapping(r, r.below(4), lambda r: {"type": TYPES[r.below(len(TYPES))], "description": text(r)})
    function["parameters"] = {"type": "object", "properties": properties, "required": list(properties)[: r.below(2)]}
    return {"type": "function", "function": function}


def call(r, i):
    name = NAMES[r.below(len(NAMES))]
    return {"id": f"abcdefgh{i}", "type": "function", "function": {"name": name, "arguments": mapping(r, r.below(4), value)}}


def assistant(r, tools):
    """A turn of the assistant, with the results of its calls."""
    kind = r.below(6)
    if kind == 2:
        return [{"role": "assistant", "content": f"<think>\n{text(r)}\n</think>\n\n{text(r)}"}]
    if kind == 3:
        thoughts = text(r)
        return [{"thinking": thoughts, "role": "assistant", "content": text(r), "reasoning_content": thoughts}]
    if kind < 4 or not tools:
        return [{"role": "assistant", "content": text(r)}]
    content = ["", None, "x"][r.below(3)]
    if content == "x":
        content = text(r)
    calls = [call(r, i) for i in range(1 + r.below(2))]
    turns = [{"role": "assistant", "content": content, "tool_calls": calls}]
    for c in calls:
        turns.append({"role": "tool", "content": text(r), "name": c["function"]["name"], "tool_call_id": c["id"]})
    if r.below(2) == 0:
        turns.append({"role": "assistant", "content": text(r)})
    return turns


def conversation(seed):
    r = Numbers(seed)
    tools = [tool(r) for _ in range(1 + r.below(3))] if r.below(3) == 0 else None
    messages = []
    if r.below(3) == 0:
        messages.append({"role": "system", "content": text(r)})
    turns = 1 + r.below(3)
    for i in range(turns):
        messages.append({"role": "user", "content": text(r)})
        if r.below(40) == 0:
            messages.append({"role": "user", "content": text(r)})
        if i == turns - 1 and r.below(3) > 0:
            break
        messages += assistant(r, tools)
    context = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": r.below(4) > 0}
    thinking = r.below(3)
    if thinking > 0:
        context["enable_thinking"] = thinking == 1
    return context


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 4, 5, 6, 7)


def main():
    assert jinja2.__version__ == "3.1.6" and transformers.__version__ == "5.24.0" and tokenizers.__version__ == "0.23.3"
    chat_template_utils.datetime = Clock
    (HERE / "corpus").mkdir(exist_ok=True)
    families = {}
    for family, (kind, specials) in FAMILIES.items():
        if kind == "tekken":
            tok = transformers.integrations.mistral.tokenizer.convert_tekken_tokenizer(str(KINDS / kind / "tekken.json"))
        else:
            tok = transformers.AutoTokenizer.from_pretrained(KINDS / kind)
        tok.add_tokens(specials, special_tokens=True)
        tokens = {k: v for k in ("bos_token", "eos_token", "pad_token", "unk_token") if (v := getattr(tok, k))}
        template = chat_template_utils._compile_jinja_template((TEMPLATES / f"{family}.jinja").read_text())
        families[family] = {"kind": kind, "specials": specials, "tokens": tokens}
        out, errors = bytearray(), 0
        for seed in range(COUNT):
            try:
                rendered = template.render(**conversation(seed), **tokens)
                ids = tok.encode(rendered, add_special_tokens=False)
                result = rendered + "\0" + ",".join(map(str, ids))
            except Exception as e:
                errors += 1
                result = "!" + (str(e) if type(e) is jinja2.exceptions.TemplateError else type(e).__name__)
            out += hashlib.sha256(result.encode()).digest()[:4]
            if sys.argv[1:] == [family, str(seed)]:
                print(json.dumps({**conversation(seed), **tokens}), result, sep="\n")
        (HERE / "corpus" / family).write_bytes(out)
        print(f"{family}: {errors} of {COUNT} are errors")
    data = {"families": families, "pieces": PIECES, "names": NAMES, "types": TYPES, "floats": FLOATS}
    (HERE / "corpus.json").write_text(json.dumps(data, indent=1) + "\n")


main()
