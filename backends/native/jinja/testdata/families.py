"""The families' templates (templates/) with the conversations that each of them renders."""

import json

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

SYSTEM = {"role": "system", "content": " Be brief.\n"}
USER = {"role": "user", "content": "Grüße, 日本! 👍🏽 <b>&amp;</b>\n"}
ASSISTANT = {"role": "assistant", "content": "<think>\nHm: \"well\"\n</think>\n\nYes — ja.\n"}

# The order of keys, the kinds of numbers and the escapes must come out as they went in.
ARGUMENTS = {
    "zone": "Zürich \"HB\" \\ \u2028 </s>\t",
    "alt": 1.0,
    "tiny": 1e-07,
    "huge": 1e22,
    "count": 3,
    "long": 123456789012345678901234567890,
    "ok": True,
    "no": False,
    "nothing": None,
    "list": [1, 2.50, None, [], {}, {"b": {"a": ["ü", True]}}],
    "": "",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather: it's \"hot\" & <wet> in 東京.\nSecond line.",
            "parameters": {
                "type": "object",
                "properties": {
                    "zone": {"type": "string", "description": " Where. ", "enum": ["b", "a"], "default": "b"},
                    "alt": {"type": ["number", "null"], "default": 1.0},
                    "days": {"type": "integer", "description": "How many", "default": 3},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "deep": {"type": "object", "properties": {"y": {"type": "boolean"}, "x": {"type": "number"}}},
                },
                "required": ["zone"],
            },
        },
    },
    {"type": "function", "function": {"name": "nothing", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


def call(arguments, id="abcdefghi"):
    return {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def result(content, id="abcdefghi"):
    return {"role": "tool", "tool_call_id": id, "name": "get_weather", "content": content}


def assistant(content=None, **more):
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS = {
    "question": ([USER], {"add_generation_prompt": True}),
    "turns": ([SYSTEM, USER, ASSISTANT, {"role": "user", "content": "again"}], {"add_generation_prompt": True}),
    "answered": ([SYSTEM, USER, ASSISTANT], {"add_generation_prompt": False}),
    "no-thoughts": ([USER, ASSISTANT, USER], {"add_generation_prompt": True, "enable_thinking": False, "thinking": False}),
    "thoughts": (
        [USER, assistant("So.", reasoning_content="\n1 < 2 \n"), USER, assistant("Bye", reasoning_content="fin")],
        {"thinking": True, "reasoning_effort": "high"},
    ),
    "tools": ([SYSTEM, USER], {"tools": TOOLS, "add_generation_prompt": True}),
    "tools-in-system": ([SYSTEM, USER], {"tools": TOOLS, "add_generation_prompt": True, "tools_in_user_message": False}),
    "call": (
        [SYSTEM, USER, assistant(tool_calls=[call(ARGUMENTS)]), result('{"t": 3.50}'), {"role": "user", "content": "so?"}],
        {"tools": TOOLS, "add_generation_prompt": True},
    ),
    "call-unfinished": ([USER, assistant("", tool_calls=[call(ARGUMENTS)]), result("☀️")], {"tools": TOOLS, "add_generation_prompt": True}),
    "calls": (
        [USER, assistant("Two.", tool_calls=[call({"zone": "a"}), call({}, "jklmnopqr")]), result("1"), result("", "jklmnopqr"), assistant("Done.")],
        {"tools": TOOLS},
    ),
    "call-of-text": ([USER, assistant("x", tool_calls=[call('{"a":1.0}', "short")]), result("1", "short")], {"tools": TOOLS[:1]}),
    "call-built-in": (
        [USER, assistant(tool_calls=[call({"zone": "a", "alt": 2.5})]), result({"content": [1, None]})],
        {"builtin_tools": ["get_weather", "code_interpreter"]},
    ),
    "parts": (
        [
            {"role": "system", "content": [{"type": "text", "text": "Look."}]},
            {"role": "user", "content": [{"type": "text", "text": " left "}, {"type": "image", "image": "x"}, {"type": "text", "text": "right"}]},
        ],
        {"add_generation_prompt": True},
    ),
    "documents": (
        [USER],
        {"documents": [{"title": "T", "body": "one\n\ntwo", "Count": 1.0}, {"b": None, "a": True}], "add_generation_prompt": True},
    ),
    "developer": ([{"role": "developer", "content": "Obey."}, USER], {"add_generation_prompt": True, "model_identity": "You are é."}),
    "empty-content": ([{"role": "user", "content": ""}, assistant(""), {"role": "user", "content": " "}], {"add_generation_prompt": True}),
    "none-content": ([USER, assistant(None), USER], {"add_generation_prompt": True}),
    "two-users": ([USER, USER], {}),
    "nobody": ([], {"add_generation_prompt": True}),
}

FAMILIES = ["chatml", "llama", "mistral", "gemma", "deepseek", "phi", "glm", "harmony", "command"]


def cases():
    """Yields family, conversation and the context as JSON text."""
    for family in FAMILIES:
        for name, (messages, more) in CONVERSATIONS.items():
            yield family, name, json.dumps({**TOKENS, "messages": messages, **more}, ensure_ascii=False)
