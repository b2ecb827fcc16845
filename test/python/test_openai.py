"""The openai package against a running server; BASE_URL says where."""
import json
import os
import unittest
from concurrent.futures import ThreadPoolExecutor

import openai

MODEL = "pagoda-demo"
client = openai.OpenAI(base_url=os.environ["BASE_URL"] + "/v1", api_key="none", max_retries=0)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(text="hi", **kwargs):
    kwargs = {"model": MODEL, "temperature": 0, **kwargs}
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **kwargs)


class Chat(unittest.TestCase):
    def test_answer(self):
        r = chat()
        self.assertEqual(r.choices[0].message.content, "Hi! How can I help you?")
        self.assertEqual(r.choices[0].finish_reason, "stop")
        self.assertEqual(r.choices[0].message.role, "assistant")
        self.assertEqual(r.model, MODEL)
        self.assertEqual(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)

    def test_stream_equals_whole(self):
        text, finish, usage = "", None, None
        for chunk in chat(stream=True, stream_options={"include_usage": True}):
            if chunk.usage:
                usage = chunk.usage
            for c in chunk.choices:
                text += c.delta.content or ""
                finish = c.finish_reason or finish
        whole = chat()
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(finish, "stop")
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_stream_helper(self):
        with client.chat.completions.stream(model=MODEL, temperature=0,
                                            messages=[{"role": "user", "content": "hi"}]) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.delta", kinds)
        self.assertEqual(final.choices[0].message.content, "Hi! How can I help you?")

    def test_adapter_is_chosen_by_model(self):
        self.assertTrue(chat(model="pirate").choices[0].message.content.startswith("Arr"))

    def test_thinking(self):
        r = chat("What is 12 + 7?")
        self.assertIn("19", r.choices[0].message.content)
        self.assertTrue(r.choices[0].message.model_extra["reasoning_content"])
        r = chat("What is 12 + 7?", extra_body={"chat_template_kwargs": {"enable_thinking": False}})
        self.assertFalse((r.choices[0].message.model_extra or {}).get("reasoning_content"))

    def test_tools(self):
        r = chat("What is the weather in Paris?", tools=[WEATHER])
        call = r.choices[0].message.tool_calls[0]
        self.assertEqual(r.choices[0].finish_reason, "tool_calls")
        self.assertEqual(call.function.name, "get_weather")
        self.assertEqual(json.loads(call.function.arguments)["city"], "Paris")
        again = client.chat.completions.create(
            model=MODEL, temperature=0, tools=[WEATHER],
            messages=[{"role": "user", "content": "What is the weather in Paris?"}, r.choices[0].message,
                      {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'}])
        self.assertEqual(again.choices[0].finish_reason, "stop")

    def test_tools_streamed(self):
        name, arguments, finish = "", "", None
        for chunk in chat("What is the weather in Paris?", tools=[WEATHER], stream=True):
            for c in chunk.choices:
                for call in c.delta.tool_calls or []:
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
                finish = c.finish_reason or finish
        self.assertEqual((name, json.loads(arguments)["city"], finish), ("get_weather", "Paris", "tool_calls"))

    def test_tool_choice_none(self):
        r = chat("What is the weather in Paris?", tools=[WEATHER], tool_choice="none")
        self.assertIsNone(r.choices[0].message.tool_calls)

    def test_logprobs(self):
        r = chat(logprobs=True, top_logprobs=3)
        tokens = r.choices[0].logprobs.content
        self.assertEqual(len(tokens[0].top_logprobs), 3)
        self.assertTrue(all(t.logprob <= 0 for t in tokens))
        self.assertEqual(tokens[0].top_logprobs[0].token, tokens[0].token)
        self.assertEqual("".join(t.token for t in tokens).replace("<|im_end|>", ""), r.choices[0].message.content)

    def test_n_and_seed(self):
        ask = lambda: [c.message.content for c in
                       chat("Tell me a story about a cat.", n=3, seed=5, temperature=1, max_tokens=24).choices]
        first = ask()
        self.assertEqual(len(first), 3)
        self.assertEqual(first, ask())

    def test_stop_and_length(self):
        r = chat(stop=["How"])
        self.assertEqual((r.choices[0].message.content, r.choices[0].finish_reason), ("Hi! ", "stop"))
        r = chat(max_completion_tokens=2)
        self.assertEqual((r.usage.completion_tokens, r.choices[0].finish_reason), (2, "length"))

    def test_many_at_once(self):
        with ThreadPoolExecutor(32) as pool:
            answers = set(pool.map(lambda _: chat().choices[0].message.content, range(64)))
        self.assertEqual(answers, {"Hi! How can I help you?"})


class Parameters(unittest.TestCase):
    """Each parameter does what it says."""
    GREEDY = "Hi! How can I help you?"
    IDS = [1056, 33, 730, 613, 351, 432, 368, 63, 2041]

    def check(self, want, extra=None, **kwargs):
        self.assertEqual(chat(extra_body=extra, **kwargs).choices[0].message.content, want)

    def test_truncations_that_leave_one_token(self):
        self.check(self.GREEDY, {"top_k": 1}, temperature=2)
        self.check(self.GREEDY, {"min_p": 1}, temperature=2)
        self.check(self.GREEDY, temperature=2, top_p=1e-9)

    def test_seed(self):
        texts = [chat(temperature=2, seed=s, max_tokens=8).choices[0].message.content for s in (1, 1, 2, 3, 4)]
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(set(texts)), 1)

    def test_penalties(self):
        once = {"text": "Repeat: a a a a a a", "max_tokens": 24}
        free = chat(**once).choices[0].message.content
        self.assertGreater(free.count("a"), 10)
        for extra in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 3}):
            with self.subTest(extra):
                self.assertLess(chat(**once, extra_body=extra).choices[0].message.content.count(" a a"), free.count(" a a"))

    def test_logit_bias(self):
        r = chat(logit_bias={self.IDS[0]: -100}, extra_body={"return_token_ids": True})
        self.assertNotIn(self.IDS[0], r.choices[0].model_extra["token_ids"])

    def test_token_ids(self):
        for stream in (False, True):
            r = chat(stream=stream, extra_body={"return_token_ids": True})
            got = [c for chunk in r for c in chunk.choices] if stream else r.choices
            self.assertEqual([t for c in got for t in c.model_extra.get("token_ids", [])], self.IDS)

    def test_ends(self):
        r = chat(extra_body={"stop_token_ids": [self.IDS[1]]})
        self.assertEqual((r.choices[0].message.content, r.choices[0].model_extra["stop_reason"]), ("Hi", self.IDS[1]))
        self.check("Hi! How can", {"include_stop_str_in_output": True}, stop="can")
        self.check("Hi! How can I help you?" + 4 * "<|im_end|>", {"ignore_eos": True, "skip_special_tokens": False}, max_tokens=12)
        self.assertGreaterEqual(chat(extra_body={"min_tokens": 15}).usage.completion_tokens, 15)

    def test_continue_final_message(self):
        r = client.chat.completions.create(
            model=MODEL, temperature=0, extra_body={"continue_final_message": True},
            messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hi"}])
        self.assertEqual(r.choices[0].message.content, "! How can I help you?")

    def test_roles_and_parts(self):
        for role in ("system", "developer"):
            r = client.chat.completions.create(model=MODEL, temperature=0, user="u", messages=[
                {"role": role, "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}])
            self.assertEqual(r.choices[0].message.content, self.GREEDY)

    def test_parallel_tool_calls(self):
        ask = "What is the weather in Paris and in London?"
        self.assertEqual(len(chat(ask, tools=[WEATHER]).choices[0].message.tool_calls), 2)
        self.assertEqual(len(chat(ask, tools=[WEATHER], parallel_tool_calls=False).choices[0].message.tool_calls), 1)

    def test_n_streamed(self):
        texts = ["", "", ""]
        for chunk in chat("Tell me a story about a cat.", n=3, seed=5, temperature=1, max_tokens=24, stream=True):
            for c in chunk.choices:
                texts[c.index] += c.delta.content or ""
        whole = chat("Tell me a story about a cat.", n=3, seed=5, temperature=1, max_tokens=24)
        self.assertEqual(texts, [c.message.content for c in whole.choices])

    def test_logprobs_streamed(self):
        streamed = [t for chunk in chat(logprobs=True, top_logprobs=2, stream=True) for c in chunk.choices if c.logprobs
                    for t in c.logprobs.content]
        self.assertEqual(streamed, chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content)


class Completions(unittest.TestCase):
    PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

    def test_text(self):
        r = client.completions.create(model=MODEL, prompt=self.PROMPT, max_tokens=20, temperature=0)
        self.assertEqual(r.choices[0].text, "Hi! How can I help you?")

    def test_several_prompts_with_echo_and_logprobs(self):
        r = client.completions.create(model=MODEL, prompt=[self.PROMPT, "1 2 3"], max_tokens=3, temperature=0,
                                      echo=True, logprobs=2)
        self.assertEqual([c.index for c in r.choices], [0, 1])
        self.assertTrue(r.choices[1].text.startswith("1 2 3"))
        self.assertIsNone(r.choices[1].logprobs.token_logprobs[0])

    def test_best_of(self):
        r = client.completions.create(model=MODEL, prompt="1 2 3", best_of=5, n=2, temperature=1.5, max_tokens=4, seed=1)
        self.assertEqual((len(r.choices), r.usage.completion_tokens > 8), (2, True))

    def test_token_ids(self):
        r = client.completions.create(model=MODEL, prompt=[2040, 275, 10, 456, 2041, 10, 2040, 273, 10], max_tokens=20,
                                      temperature=0)
        self.assertEqual(r.choices[0].text, "Hi! How can I help you?")

    def test_stream(self):
        stream = client.completions.create(model=MODEL, prompt=self.PROMPT, max_tokens=20, temperature=0, stream=True)
        self.assertEqual("".join(c.choices[0].text for c in stream if c.choices), "Hi! How can I help you?")


def golden(name):
    with open(f"backends/native/encoder/testdata/{name}/golden.json", encoding="utf-8") as f:
        return json.load(f)


class Embeddings(unittest.TestCase):
    """Against what sentence-transformers computed with the same tiny models."""

    def embed(self, **kwargs):
        r = client.embeddings.create(**{"model": "qwen3-embedding", "input": "a", **kwargs})
        self.assertEqual(r.usage.prompt_tokens, r.usage.total_tokens)
        self.assertEqual([d.index for d in r.data], list(range(len(r.data))))
        return [d.embedding for d in r.data]

    def near(self, got, want):
        self.assertEqual(len(got), len(want))
        for x, y in zip(got, want):
            self.assertAlmostEqual(x, y, delta=1e-4)

    def test_texts(self):
        g = golden("qwen3-embedding")
        want = [(t, v) for t, v in zip(g["texts"], g["vectors"]) if t]
        # The client asks for base64 unless it is told otherwise, and decodes it.
        for more in ({}, {"encoding_format": "float"}):
            for got, (_, v) in zip(self.embed(input=[t for t, _ in want], **more), want, strict=True):
                self.near(got, v)
        self.near(self.embed(input=want[0][0])[0], want[0][1])

    def test_tokens(self):
        g = golden("qwen3-embedding")
        for got, v in zip(self.embed(input=g["tokens"]), g["vectors"], strict=True):
            self.near(got, v)
        self.near(self.embed(input=g["tokens"][3])[0], g["vectors"][3])

    def test_dimensions_and_prompt(self):
        g = golden("qwen3-embedding")
        self.near(self.embed(input=g["texts"][0], dimensions=6)[0], g["cut"][0])
        self.near(self.embed(input=g["texts"][0], extra_body={"prompt_name": "query"})[0], g["queries"][0])

    def test_base64(self):
        self.assertIsInstance(self.embed(encoding_format="base64")[0], str)

    def test_refused(self):
        for param, more in (("dimensions", {"dimensions": 17}), ("model", {"model": MODEL}), ("input", {"input": ""}),
                            ("prompt_name", {"extra_body": {"prompt_name": "odd"}})):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.embed(**more)
            self.assertEqual(caught.exception.param, param)

    def test_many_at_once(self):
        g = golden("qwen3-embedding")
        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda _: self.embed(input=g["texts"][3]), range(32)):
                self.near(got[0], g["vectors"][3])

    def test_rerank(self):
        g = golden("qwen3-seq-cls")
        r = client.post("/rerank", cast_to=object, body={
            "model": "qwen3-seq-cls", "query": g["pairs"][0][0], "documents": [d for _, d in g["pairs"]]})
        by = {x["index"]: x["relevance_score"] for x in r["results"]}
        self.assertAlmostEqual(by[0], g["scores"][0], delta=1e-4)
        self.assertEqual([x["relevance_score"] for x in r["results"]], sorted(by.values(), reverse=True))


class ModelsAndErrors(unittest.TestCase):
    def test_models(self):
        self.assertEqual({m.id for m in client.models.list()}, {MODEL, "shout", "pirate", "french", "qwen3-embedding", "qwen3-seq-cls"})
        self.assertEqual(client.models.retrieve("shout").id, "shout")

    def test_unknown_model(self):
        for stream in (False, True):
            with self.assertRaises(openai.NotFoundError) as caught:
                chat(model="nobody", stream=stream)
            self.assertEqual(caught.exception.param, "model")
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("nobody")

    def test_bad_field(self):
        for name, value in {"temperature": 3, "top_p": 0, "n": 0, "frobnicate": 1, "response_format":
                            {"type": "json_object"}, "max_tokens": -1, "logit_bias": {"x": 1}}.items():
            with self.subTest(name), self.assertRaises(openai.BadRequestError) as caught:
                chat(extra_body={name: value})
            self.assertIn(name, caught.exception.message)

    def test_request_id(self):
        r = client.with_options(default_headers={"X-Request-Id": "mine-1"}).models.with_raw_response.list()
        self.assertEqual(r.headers["x-request-id"], "mine-1")

    def test_too_long(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            chat("one two three " * 1000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn("1024", caught.exception.message)


if __name__ == "__main__":
    unittest.main()
