"""Writes what LlamaFactory makes of conversations.json with each of its templates, as hashes of the pieces that it gives to the
tokenizer:

    python expected.py CHECKOUT_OF_0.9.4 CHECKOUT_OF_MAIN     # in this folder; needs nothing but Python

Only src/llamafactory/data/{formatter,template,tool_utils}.py are loaded, with stand-ins for what they import. Of templates that
both versions have the newer one counts, but for gpt_oss, whose answers ended with <|end|> until 0.9.4.
"""
import datetime
import enum
import hashlib
import importlib.util
import json
import pathlib
import sys
import types


class Role(str, enum.Enum):
    USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
    FUNCTION, OBSERVATION = "function", "observation"


class Clock:
    @staticmethod
    def now():
        return datetime.datetime(2026, 1, 2)


class Silent:
    def __getattr__(self, _):
        return lambda *args, **kwargs: None


def load(root, package):
    def module(name, **members):
        m = types.ModuleType(name)
        m.__path__ = []
        m.__dict__.update(members)
        sys.modules[name] = m
        return m

    module(package)
    module(package + ".data")
    module(package + ".extras").logging = module(package + ".extras.logging", get_logger=lambda *_: Silent())
    module(package + ".data.data_utils", Role=Role, SLOTS=list)
    module(package + ".data.mm_plugin", get_mm_plugin=lambda *args, **kwargs: None)
    for name in ("tool_utils", "formatter", "template"):
        path = pathlib.Path(root, "src/llamafactory/data", name + ".py")
        spec = importlib.util.spec_from_file_location(f"{package}.data.{name}", path)
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])
    sys.modules[package + ".data.tool_utils"].datetime = Clock
    return sys.modules[package + ".data.template"].TEMPLATES


class Pieces:
    """A tokenizer whose tokens are the pieces themselves."""

    bos_token, bos_token_id = "<BOS>", "<BOS>"
    pad_token_id = 0

    def __init__(self, template):
        self.eos_token_id = template.stop_words[0] if template.replace_eos else "<EOS>"

    def encode(self, text, add_special_tokens):
        return [text] if text else []

    def convert_tokens_to_ids(self, token):
        return token


def turns(conversation):
    for m in conversation["messages"]:
        role = {"user": "user", "assistant": "assistant", "tool": "observation"}[m["role"]]
        content = m.get("content") or ""
        if calls := m.get("tool_calls"):
            role = "function"
            content = json.dumps([dict(name=c["name"], arguments=c["arguments"]) for c in calls], ensure_ascii=False)
        yield dict(role=role, content=content)
    yield dict(role="assistant", content="")


def digest(template, conversation):
    tools = conversation.get("tools")
    try:
        pieces, _ = template.encode_oneturn(
            Pieces(template), list(turns(conversation)), conversation.get("system"),
            json.dumps([t["function"] for t in tools], ensure_ascii=False) if tools else None)  # as its API does
    except ValueError as e:
        return "refused" if "parallel" in str(e) else sys.exit(f"{e}")
    return hashlib.sha256("\0".join(pieces).encode()).hexdigest()[:16]


def main():
    old, new = load(sys.argv[1], "old"), load(sys.argv[2], "new")
    templates = {**old, **new, "gpt_oss": old["gpt_oss"]}
    conversations = json.loads(pathlib.Path("conversations.json").read_text())
    out = {}
    for name in sorted(templates):
        t = templates[name]
        rows = []
        for thinking in (True, False):
            t.enable_thinking = thinking
            rows.append([digest(t, c) for c in conversations])
        out[name] = rows if rows[0] != rows[1] else rows[:1]
    lines = [f"{json.dumps(n)}: {json.dumps(rows)}" for n, rows in out.items()]
    pathlib.Path("expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
