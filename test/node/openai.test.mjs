// The openai package against a running server; BASE_URL says where.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import OpenAI from "openai";

const model = "pagoda-demo";
const client = new OpenAI({ baseURL: process.env.BASE_URL + "/v1", apiKey: "none", maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const chat = (content, more = {}) =>
  client.chat.completions.create({ model, temperature: 0, messages: user(content), ...more });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the current weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

test("chat", async () => {
  const r = await chat("hi");
  assert.equal(r.choices[0].message.content, "Hi! How can I help you?");
  assert.equal(r.choices[0].finish_reason, "stop");
  assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens);
});

test("chat, streamed", async () => {
  let text = "";
  let usage;
  for await (const chunk of await chat("hi", { stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "Hi! How can I help you?");
  assert.ok(usage.completion_tokens > 0);
});

test("stream helper", async () => {
  const runner = client.chat.completions.stream({ model, temperature: 0, messages: user("hi") });
  assert.equal(await runner.finalContent(), "Hi! How can I help you?");
});

test("leaving a stream", async () => {
  const stream = await chat("Tell me a story about a cat.", { stream: true });
  for await (const _ of stream) break; // the iterator aborts the request
  assert.equal((await chat("hi")).choices[0].finish_reason, "stop");
});

test("tools", async () => {
  const r = await chat("What is the weather in Paris?", { tools: [weather] });
  assert.equal(r.choices[0].finish_reason, "tool_calls");
  const call = r.choices[0].message.tool_calls[0];
  assert.deepEqual([call.function.name, JSON.parse(call.function.arguments).city], ["get_weather", "Paris"]);
});

test("tools, streamed", async () => {
  const runner = client.chat.completions.stream({
    model, temperature: 0, messages: user("What is the weather in Paris?"), tools: [weather] });
  const call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0];
  assert.equal(JSON.parse(call.function.arguments).city, "Paris");
});

test("logprobs", async () => {
  const content = (await chat("hi", { logprobs: true, top_logprobs: 2 })).choices[0].logprobs.content;
  assert.equal(content[0].top_logprobs.length, 2);
  assert.ok(content.every((t) => t.logprob <= 0));
});

test("n", async () => {
  const r = await chat("Tell me a story about a cat.", { n: 3, seed: 5, temperature: 1, max_tokens: 16 });
  assert.deepEqual(r.choices.map((c) => c.index), [0, 1, 2]);
});

test("completions", async () => {
  const prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
  const r = await client.completions.create({ model, prompt, max_tokens: 20, temperature: 0 });
  assert.equal(r.choices[0].text, "Hi! How can I help you?");
});

const golden = (name) => JSON.parse(readFileSync(`backends/native/encoder/testdata/${name}/golden.json`));
const near = (got, want) => got.length === want.length && want.every((x, i) => Math.abs(got[i] - x) <= 1e-4);

test("embeddings", async () => {
  const { texts, vectors, queries, cut, tokens } = golden("qwen3-embedding");
  const ask = async (more) => {
    const r = await client.embeddings.create({ model: "qwen3-embedding", input: texts[0], ...more });
    assert.equal(r.usage.prompt_tokens, r.usage.total_tokens);
    return r.data.map((d) => d.embedding);
  };
  const full = texts.flatMap((t, i) => (t ? [i] : [])); // texts that are not empty
  const many = await ask({ input: full.map((i) => texts[i]) }); // as base64, which the client decodes
  assert.ok(full.every((i, k) => near(many[k], vectors[i])));
  assert.ok(near((await ask({ encoding_format: "float" }))[0], vectors[0]));
  assert.ok(near((await ask({ dimensions: 6 }))[0], cut[0]));
  assert.ok(near((await ask({ input: tokens[3] }))[0], vectors[3]));
  assert.ok(near((await ask({ input: tokens }))[2], vectors[2]));
  assert.ok(near((await ask({ prompt_name: "query" }))[0], queries[0]));
  assert.equal(typeof (await client.embeddings.create({ model: "qwen3-embedding", input: "a", encoding_format: "base64" })).data[0].embedding, "string");
  await assert.rejects(ask({ dimensions: 17 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "dimensions");
  await assert.rejects(ask({ model }), (e) => e instanceof OpenAI.BadRequestError && e.param === "model");
});

test("rerank", async () => {
  const { pairs, scores } = golden("qwen3-seq-cls");
  const body = { model: "qwen3-seq-cls", query: pairs[0][0], documents: pairs.map((p) => p[1]) };
  const { results } = await client.post("/rerank", { body });
  assert.equal(results.length, pairs.length);
  assert.ok(Math.abs(results.find((r) => r.index === 0).relevance_score - scores[0]) <= 1e-4);
  assert.ok(results.every((r, i) => i === 0 || r.relevance_score <= results[i - 1].relevance_score));
});

test("models", async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.deepEqual(ids.sort(), ["french", "pagoda-demo", "pirate", "qwen3-embedding", "qwen3-seq-cls", "shout"]);
  assert.equal((await client.models.retrieve("shout")).id, "shout");
});

test("errors", async () => {
  await assert.rejects(chat("hi", { model: "nobody" }), (e) => e instanceof OpenAI.NotFoundError && e.param === "model");
  await assert.rejects(chat("hi", { temperature: 3 }), (e) => e instanceof OpenAI.BadRequestError);
  await assert.rejects(chat("hi", { frobnicate: 1 }),
    (e) => e instanceof OpenAI.BadRequestError && e.message.includes("frobnicate"));
});
