// The openai package against a running server; BASE_URL says where.
import assert from "node:assert/strict";
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

test("models", async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.deepEqual(ids.sort(), ["french", "pagoda-demo", "pirate", "shout"]);
  assert.equal((await client.models.retrieve("shout")).id, "shout");
});

test("errors", async () => {
  await assert.rejects(chat("hi", { model: "nobody" }), (e) => e instanceof OpenAI.NotFoundError && e.param === "model");
  await assert.rejects(chat("hi", { temperature: 3 }), (e) => e instanceof OpenAI.BadRequestError);
  await assert.rejects(chat("hi", { frobnicate: 1 }),
    (e) => e instanceof OpenAI.BadRequestError && e.message.includes("frobnicate"));
});
