// Renders /openapi.json as one readable page.
import { key, request } from "./api.js";
import { codeBlock, el } from "./render.js";

const methods = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main"), nav = document.getElementById("nav");

// The contents are folded where they would fill the screen.
const narrow = matchMedia("(max-width: 820px)");
nav.open = !narrow.matches;
narrow.addEventListener("change", () => { nav.open = !narrow.matches; });

let spec, model; // model is an id to show in examples

// resolve follows a local $ref. It returns the object and the name that the reference gave it.
function resolve(node) {
  if (!node?.$ref) return [node, ""];
  const path = node.$ref.replace(/^#\//, "").split("/").map((p) => p.replaceAll("~1", "/").replaceAll("~0", "~"));
  return [path.reduce((o, p) => o?.[p], spec), path.at(-1)];
}

// prose is text with `code`, its lines joined, as Markdown has it.
function prose(tag, text, attributes = {}) {
  return el(tag, { class: "text", ...attributes },
    ...(text || "").trim().replace(/([^\n])\n(?![\n*-])/g, "$1 ").split(/`([^`]+)`/).map((p, i) => (i % 2 ? el("code", {}, p) : p)));
}

// isSimple says that a few words describe a schema: it is not, and does not contain, an object with known fields.
function isSimple(schema, depth = 0) {
  const [s] = resolve(schema);
  if (s == null || s === true) return true;
  if (s.properties || s.allOf || depth > 5) return false;
  return [...(s.oneOf || []), ...(s.anyOf || []), s.items, s.additionalProperties]
    .every((part) => typeof part !== "object" || isSimple(part, depth + 1));
}

// typeOf describes a schema in a few words; schemas with a section of their own become links.
function typeOf(schema) {
  if (schema == null || schema === true) return ["anything"];
  const [target, name] = resolve(schema);
  if (name) return isSimple(target) ? typeOf(target) : [el("a", { href: "#schema-" + name }, name)];
  for (const k of ["oneOf", "anyOf"]) {
    if (schema[k]) return schema[k].flatMap((s, i) => (i ? [" or ", ...typeOf(s)] : typeOf(s)));
  }
  if (schema.allOf) return schema.allOf.flatMap((s, i) => (i ? [" and ", ...typeOf(s)] : typeOf(s)));
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((v) => JSON.stringify(v)).join(" | ")];
  const types = [].concat(schema.type || (schema.properties ? "object" : "anything"));
  const out = types.flatMap((t, i) => [i ? " or " : "", ...(t === "array" ? ["list of ", ...typeOf(schema.items)] : [t])]);
  if (schema.type === "object" && typeof schema.additionalProperties === "object" && !schema.properties) {
    out.push(" of ", ...typeOf(schema.additionalProperties));
  }
  return [...out, limits(schema)];
}

function limits(s) {
  const parts = [];
  const range = (low, high, unit) => {
    if (low != null && high != null) parts.push(`${low} to ${high}${unit}`);
    else if (low != null) parts.push(`at least ${low}${unit}`);
    else if (high != null) parts.push(`at most ${high}${unit}`);
  };
  range(s.minimum, s.maximum, "");
  if (s.exclusiveMinimum != null) parts.push("above " + s.exclusiveMinimum);
  if (s.exclusiveMaximum != null) parts.push("below " + s.exclusiveMaximum);
  range(s.minItems, s.maxItems, " items");
  range(s.minLength, s.maxLength, " characters");
  if (s.default !== undefined) parts.push("default " + JSON.stringify(s.default));
  return parts.length ? ", " + parts.join(", ") : "";
}

// properties collects those of a schema and of what it is composed of.
function properties(schema) {
  const [s] = resolve(schema);
  const found = { props: { ...s?.properties }, required: new Set(s?.required || []) };
  for (const part of s?.allOf || []) {
    const p = properties(part);
    Object.assign(found.props, p.props);
    p.required.forEach((r) => found.required.add(r));
  }
  return found;
}

function row(name, required, schema, description) {
  return el("tr", {},
    el("td", {}, name, required ? el("span", { class: "required" }, "required") : null),
    el("td", {}, el("div", { class: "type" }, ...typeOf(schema)),
      prose("div", description ?? resolve(schema)[0]?.description)));
}

function table(rows) {
  return rows.length ? el("table", { class: "props" }, el("tbody", {}, ...rows)) : null;
}

function schemaTable(schema) {
  const { props, required } = properties(schema);
  return table(Object.entries(props).map(([name, s]) => row(name, required.has(name), s)));
}

function content(node) {
  return Object.entries(node?.content || {});
}

// example is a command that calls an operation, for a shell; null if the contract has no example of its input.
function example(path, method, op) {
  const body = op.requestBody && content(resolve(op.requestBody)[0])[0]?.[1].example;
  const missing = op.requestBody ? !body : path.replace("{model}", "").includes("{");
  if (missing) return null;
  const parts = ["curl " + location.origin + path.replace("{model}", model)];
  if (key.get()) parts.push('-H "Authorization: Bearer $API_KEY"');
  if (body) {
    const shown = JSON.stringify(body.model ? { ...body, model } : body, null, 1).replace(/\n */g, " ");
    parts.push("-H 'Content-Type: application/json'", `-d '${shown.replaceAll("'", "'\\''")}'`);
  }
  return codeBlock("Example", parts.join(" \\\n  "));
}

function operation(path, method, op, shared) {
  const id = method + path.replace(/[^a-z0-9]+/gi, "-");
  const section = el("section", { class: "operation", id },
    el("h2", {}, el("span", { class: "method " + method }, method.toUpperCase()), path));
  if (op.summary) section.append(prose("p", op.summary));
  if (op.description) section.append(prose("p", op.description));
  section.append(example(path, method, op) || "");
  const parameters = [...(shared || []), ...(op.parameters || [])].map((p) => resolve(p)[0]).filter(Boolean);
  if (parameters.length) {
    section.append(el("h3", {}, "Parameters"), table(parameters.map((p) =>
      row(`${p.name} (${p.in})`, p.required, p.schema, p.description))));
  }
  for (const [type, media] of content(resolve(op.requestBody)[0])) {
    section.append(el("h3", {}, "Body, " + type), schemaTable(media.schema) || el("div", { class: "type" }, ...typeOf(media.schema)));
  }
  section.append(el("h3", {}, "Answers"), table(Object.entries(op.responses || {}).map(([status, r]) => {
    const [response] = resolve(r);
    const types = content(response).flatMap(([type, media], i) => [i ? "; " : "", type, ": ", ...typeOf(media.schema)]);
    return el("tr", {}, el("td", {}, el("span", { class: "status" }, status)),
      el("td", {}, prose("div", response?.description), types.length ? el("div", { class: "type" }, ...types) : null));
  })));
  return [id, section];
}

function heading(text) {
  nav.append(el("h2", {}, text));
  return el("h2", { class: "section-title" }, text);
}

function render() {
  document.title = spec.info.title + " API";
  main.replaceChildren(el("h1", {}, spec.info.title), prose("p", spec.info.summary), prose("p", spec.info.description, { class: "lead" }));
  const groups = new Map();
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of methods.filter((m) => item[m])) {
      const tag = item[method].tags?.[0] || "Routes";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method, item[method], item.parameters]);
    }
  }
  for (const [tag, operations] of groups) {
    main.append(heading(tag));
    for (const o of operations) {
      const [id, section] = operation(...o);
      main.append(section);
      nav.append(el("a", { href: "#" + id }, el("span", { class: "method " + o[1] }, o[1].toUpperCase()), o[0]));
    }
  }
  const schemas = Object.entries(spec.components?.schemas || {}).filter(([, schema]) => !isSimple(schema));
  if (schemas.length) main.append(heading("Schemas"));
  for (const [name, schema] of schemas) {
    const fields = schemaTable(schema);
    main.append(el("section", { class: "schema", id: "schema-" + name }, el("h2", {}, name),
      schema.description ? prose("p", schema.description) : null,
      fields || el("div", { class: "type" }, ...typeOf(schema))));
    nav.append(el("a", { href: "#schema-" + name, class: "schema-link" }, name));
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const [contract, models] = await Promise.all(["openapi.json", "v1/models"].map(async (p) => (await request(p)).json()));
  spec = contract;
  model = models.data[0]?.id || "MODEL";
  render();
} catch (err) {
  main.replaceChildren(el("div", { class: "error", role: "alert" },
    err.status === 401 ? "This server wants an API key. Type it in on the chat page, under Settings." : err.message));
}
