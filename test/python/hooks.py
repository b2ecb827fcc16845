"""What schemathesis cannot know from the contract: an id that is served, and the rules that a schema cannot tell.
Without this nearly all requests would end at an unknown model."""
import schemathesis

VOCABULARY = 330  # ids that each of the models has


def model_of(path):
    """A model for the route, of those in clients.yaml."""
    return "qwen3-embedding" if "embeddings" in path else "qwen3-seq-cls" if "rerank" in path or "score" in path else "pagoda-demo"


def ids(value):
    """Token ids within the vocabulary."""
    return [ids(v) if isinstance(v, list) else int(v) % VOCABULARY if isinstance(v, (int, float)) else v for v in value]


def short(value):
    """Texts and lists that fit the model's context."""
    if isinstance(value, dict):
        return {k: short(v) if k != "parameters" else {"properties": {}} for k, v in value.items()}
    return value[:12] if isinstance(value, str) else [short(v) for v in value[:3]] if isinstance(value, list) else value


def can_continue(messages):
    return isinstance(messages, list) and messages[-1]["role"] == "assistant" and messages[-1].get("content") is not None


def keep_rules(body):
    for name in ("messages", "prompt", "tools"):
        if name in body:
            body[name] = short(body[name])
    for message in body.get("messages") or []:
        if message.get("role") == "tool" and not message.get("tool_call_id"):
            message["tool_call_id"] = "call_1"  # without it there must be a call before
    if "input" in body:
        body["add_special_tokens"] = None  # without them a blank has no tokens
    if isinstance(body.get("text_1"), list):  # one, or as many as there are texts to compare
        body["text_1"] = body["text_1"][0]
    for name in ("prompt", "tokens", "stop_token_ids", "input"):
        if isinstance(body.get(name), list):
            body[name] = ids(body[name])
    if body.get("logit_bias"):
        body["logit_bias"] = {str(int(k) % VOCABULARY): v for k, v in body["logit_bias"].items()}
    for name, most in {"max_tokens": 4, "max_completion_tokens": 4, "n": 3, "best_of": 3}.items():  # to be quick
        if body.get(name):
            body[name] = min(body[name], most)
    longest = [body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    if len(longest) == 2:
        body["max_tokens"] = longest[0]
    if body.get("min_tokens"):
        body["min_tokens"] = min(body["min_tokens"], *longest, 4)
    if body.get("best_of") and (body["best_of"] < (body.get("n") or 1) or body.get("stream")):
        body["best_of"] = body.get("n")
    if not body.get("stream"):
        body.pop("stream_options", None)
    elif (body.get("stream_options") or {}).get("continuous_usage_stats"):
        body["stream_options"]["include_usage"] = True
    if body.get("dimensions"):
        body["dimensions"] = min(body["dimensions"], 16)  # the model's
    for name in ("input", "query", "documents", "text_1", "text_2"):
        if name in body:
            body[name] = short(body[name])
            body["truncate_prompt_tokens"] = -1  # how little leaves room for a text is the model's to say
    if body.get("top_logprobs"):
        body["logprobs"] = True
    if body.get("continue_final_message"):
        body["add_generation_prompt"] = None
        body["continue_final_message"] = can_continue(body.get("messages"))


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    positive = case.meta.generation.mode.is_positive
    if positive or isinstance(body.get("model"), str) and 0 < len(body["model"]) <= 512:
        body["model"] = model_of(case.path)
    if positive:
        keep_rules(body)
