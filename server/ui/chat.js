import { APIError, events, key, request } from "./api.js";
import { copyButton, el, prose } from "./render.js";

const $ = (id) => document.getElementById(id);
const log = $("log"), input = $("input"), send = $("send"), model = $("model");
const numbers = ["temperature", "top_p", "max_tokens", "seed"];

let messages = []; // the conversation as the API wants it, without the system prompt
let running = null; // the AbortController of the answer being streamed

// ---- settings ----

const saved = ["system", "thinking", "tools", ...numbers];
for (const id of saved) {
  $(id).value = sessionStorage.getItem("pagoda-" + id) || "";
  $(id).addEventListener("change", () => sessionStorage.setItem("pagoda-" + id, $(id).value));
}
$("key").value = key.get();
$("key").addEventListener("change", () => {
  key.set($("key").value.trim());
  loadModels();
});

function showSettings(open) {
  $("settings").hidden = !open;
  $("toggle").setAttribute("aria-expanded", String(open));
}
const narrow = matchMedia("(max-width: 820px)");
showSettings(!narrow.matches);
narrow.addEventListener("change", () => showSettings(!narrow.matches));
$("toggle").addEventListener("click", () => showSettings($("settings").hidden));
$("close").addEventListener("click", () => {
  showSettings(false);
  $("toggle").focus();
});

// body is the request, or throws an Error that says which setting is wrong.
function body() {
  const b = { model: model.value, messages: [...messages], stream: true, stream_options: { include_usage: true } };
  if ($("system").value.trim()) b.messages.unshift({ role: "system", content: $("system").value });
  for (const id of numbers) {
    if (!$(id).checkValidity()) throw new Error($(id).labels[0].textContent + ": " + $(id).validationMessage);
    if ($(id).value !== "") b[id] = Number($(id).value);
  }
  if ($("thinking").value) b.chat_template_kwargs = { enable_thinking: $("thinking").value === "on" };
  if ($("tools").value.trim()) {
    try {
      b.tools = JSON.parse($("tools").value);
    } catch (err) {
      throw new Error("Tools: " + err.message);
    }
  }
  return b;
}

// ---- models ----

async function loadModels() {
  try {
    const { data } = await (await request("v1/models")).json();
    const before = model.value || sessionStorage.getItem("pagoda-model");
    const adapters = data.filter((m) => m.parent);
    model.replaceChildren(...data.filter((m) => !m.parent).map((m) => el("option", { value: m.id }, m.id)));
    if (adapters.length) {
      model.append(el("optgroup", { label: "Adapters" }, ...adapters.map((m) => el("option", { value: m.id }, m.id))));
    }
    if (data.some((m) => m.id === before)) model.value = before;
    modelChanged();
    log.querySelectorAll(".startup").forEach((e) => e.remove());
    if (!data.length) {
      log.append(el("div", { class: "note startup", role: "status" }, "The model is loading."));
      setTimeout(loadModels, 1000);
    }
  } catch (err) {
    log.querySelectorAll(".startup").forEach((e) => e.remove());
    log.append(el("div", { class: "error startup", role: "alert" }, explain(err)));
    if (!err.status) setTimeout(loadModels, 3000); // not reached: it may be starting
    askForKey(err);
  }
}

function modelChanged() {
  sessionStorage.setItem("pagoda-model", model.value);
  $("welcome-model").textContent = model.value || "this server";
}
model.addEventListener("change", modelChanged);

function askForKey(err) {
  if (err.status !== 401) return;
  showSettings(true);
  $("key").focus();
}

function explain(err) {
  if (err.status === 401) return "This server wants an API key. Type it in under Settings.";
  const message = err.message.charAt(0).toUpperCase() + err.message.slice(1);
  if (!err.retryAfter) return message;
  return `${message.replace(/[.]?$/, ".")} Try again in ${err.retryAfter} s.`;
}

// ---- conversation ----

function turn(role, who) {
  $("welcome").hidden = true;
  const t = el("article", { class: "turn " + role, "aria-label": who }, el("div", { class: "who" }, who));
  log.append(t);
  return t;
}

function say(role, content, extra = {}) {
  messages.push({ role, content, ...extra });
  const b = el("div", { class: "body" });
  prose(b, content);
  turn(role, role === "user" ? "You" : "Result of " + extra.name).append(b);
  log.scrollTop = log.scrollHeight;
}

// Answer shows one assistant turn while it streams.
class Answer {
  constructor(name) {
    this.content = "";
    this.reasoning = "";
    this.calls = []; // {id, type, function: {name, arguments}}
    this.started = performance.now();
    this.pieces = 0; // deltas; their number stands in for tokens until usage comes
    this.thoughts = el("div");
    this.thinkingLabel = el("summary", {}, "Thinking");
    this.thinking = el("details", { class: "thinking", hidden: true }, this.thinkingLabel, this.thoughts);
    this.body = el("div", { class: "body" });
    this.callList = el("div");
    this.stats = el("span", { class: "stats" });
    this.foot = el("div", { class: "foot" }, this.stats);
    this.element = turn("assistant busy", name);
    this.element.append(this.thinking, this.body, this.callList, this.foot);
    this.draw();
  }

  // add takes one chunk of the stream.
  add(chunk) {
    if (chunk.error) throw new APIError(chunk.error.message, 200);
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices && chunk.choices[0];
    if (!choice) return;
    const delta = choice.delta || {};
    const thought = delta.reasoning_content ?? delta.reasoning;
    if (thought || delta.content || delta.tool_calls) {
      this.last = performance.now();
      this.first ??= this.last;
      if (!thought) this.thoughtFor ??= this.last - this.first;
      this.pieces++;
    }
    this.reasoning += thought || "";
    this.content += delta.content || "";
    for (const d of delta.tool_calls || []) {
      const call = (this.calls[d.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
      call.id ||= d.id || "";
      call.function.name += d.function?.name || "";
      call.function.arguments += d.function?.arguments || "";
    }
    this.finish = choice.finish_reason || this.finish;
    this.drawSoon();
  }

  // drawSoon draws at most once a frame, however fast the tokens come.
  drawSoon() {
    this.pending ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = undefined;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    this.thinking.hidden = !this.reasoning.trim();
    this.thoughts.textContent = this.reasoning.trim();
    if (this.thoughtFor > 50) this.thinkingLabel.textContent = `Thought for ${(this.thoughtFor / 1000).toFixed(1)} s`;
    prose(this.body, this.content);
    this.callList.replaceChildren(...this.calls.map((c) => el("div", { class: "call" },
      el("span", {}, "Calls "), el("b", {}, c.function.name), el("pre", {}, c.function.arguments))));
    this.stats.textContent = this.measure();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  measure() {
    if (!this.first) return "Waiting";
    const parts = ["first token " + Math.round(this.first - this.started) + " ms"];
    const tokens = this.usage ? this.usage.completion_tokens : this.pieces;
    const seconds = (this.last - this.first) / 1000;
    if (tokens > 1 && seconds > 0.005) { // less says nothing
      const rate = (tokens - 1) / seconds;
      parts.push(rate.toFixed(rate < 100 ? 1 : 0) + " tokens/s");
    }
    parts.push(tokens + (tokens === 1 ? " token" : " tokens"));
    if (this.finish === "length") parts.push("cut at the length limit");
    return parts.join(" · ");
  }

  // end closes the turn; note says why it is not whole, if so.
  end(note) {
    this.element.classList.remove("busy");
    this.draw();
    if (!this.first) this.stats.textContent = "";
    if (note) this.foot.append(el("span", {}, note));
    if (this.content) this.foot.append(copyButton(() => this.content) || "");
  }

  message() {
    const m = { role: "assistant", content: this.content };
    if (this.calls.length) m.tool_calls = this.calls.filter(Boolean);
    return m;
  }
}

async function answer() {
  const shown = new Answer(model.value || "Assistant");
  const conversation = messages; // "New chat" replaces it; a late end must not write into the next one
  running = new AbortController();
  send.textContent = "Stop";
  $("status").textContent = "The answer has begun.";
  try {
    const response = await request("v1/chat/completions", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body()),
      signal: running.signal,
    });
    for await (const chunk of events(response)) shown.add(chunk);
    shown.end();
    conversation.push(shown.message());
    shown.calls.filter(Boolean).forEach((c, i) => shown.callList.children[i].append(resultForm(c)));
    $("status").textContent = "The answer is complete.";
  } catch (err) {
    const stopped = err.name === "AbortError";
    shown.end(stopped ? "stopped" : "");
    if (shown.content) conversation.push({ role: "assistant", content: shown.content });
    if (!stopped) {
      shown.foot.before(el("div", { class: "error", role: "alert" }, explain(err)));
      askForKey(err);
    }
    $("status").textContent = stopped ? "The answer was stopped." : "The answer failed.";
  } finally {
    if (shown.first || shown.element.querySelector(".error")) shown.foot.append(retryButton(shown));
    running = null;
    send.textContent = "Send";
    log.scrollTop = log.scrollHeight;
  }
}

// retryButton takes back this turn and all after it, and asks again.
function retryButton(shown) {
  const keep = messages.length - (messages.at(-1)?.role === "assistant" ? 1 : 0);
  return el("button", {
    type: "button", class: "quiet", onclick: () => {
      if (running) return;
      messages.length = keep;
      while (log.lastElementChild !== shown.element) log.lastElementChild.remove();
      shown.element.remove();
      answer();
    },
  }, "Retry");
}

function resultForm(call) {
  const result = el("input", { "aria-label": "Result of " + call.function.name, placeholder: "Result" });
  const form = el("form", {
    onsubmit: (ev) => {
      ev.preventDefault();
      form.remove();
      say("tool", result.value, { tool_call_id: call.id, name: call.function.name });
      if (!log.querySelector(".call form")) answer(); // after the last open call
    },
  }, result, el("button", { type: "submit" }, "Send"));
  return form;
}

// ---- composer ----

function grow() {
  input.style.height = "auto";
  input.style.height = input.scrollHeight + "px";
}
input.addEventListener("input", grow);
input.addEventListener("keydown", (ev) => {
  if (ev.key !== "Enter" || ev.shiftKey || ev.isComposing) return;
  ev.preventDefault();
  if (!running) $("composer").requestSubmit();
});
document.addEventListener("keydown", (ev) => {
  if (ev.key === "Escape" && running) running.abort();
});

$("composer").addEventListener("submit", (ev) => {
  ev.preventDefault();
  if (running) {
    running.abort();
    return;
  }
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  grow();
  log.querySelectorAll(".call form").forEach((f) => f.remove());
  say("user", text);
  answer();
  input.focus();
});

for (const chip of document.querySelectorAll(".chips button")) {
  chip.addEventListener("click", () => {
    input.value = chip.textContent;
    $("composer").requestSubmit();
  });
}

$("reset").addEventListener("click", () => {
  running?.abort();
  messages = [];
  log.replaceChildren($("welcome"));
  $("welcome").hidden = false;
  input.focus();
});

loadModels();
