// Elements from text that cannot be trusted: text goes in as text, never as HTML.

// el makes an element; children are elements or strings.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value === true) e.setAttribute(name, "");
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c != null));
  return e;
}

// prose fills parent with text: ``` fences become code blocks, `…` inline code, blank lines paragraphs. An open fence
// (still streaming) runs to the end.
export function prose(parent, text) {
  parent.replaceChildren();
  text.split(/^```/m).forEach((part, i) => {
    if (i % 2 === 1) {
      const eol = part.indexOf("\n");
      parent.append(codeBlock(part.slice(0, eol < 0 ? part.length : eol).trim(), eol < 0 ? "" : part.slice(eol + 1)));
      return;
    }
    for (const paragraph of part.split(/\n{2,}/)) {
      if (paragraph.trim()) parent.append(el("p", {}, ...inline(paragraph.replace(/^\n+|\n+$/g, ""))));
    }
  });
}

function inline(text) {
  return text.split(/`([^`\n]+)`/).map((part, i) => (i % 2 ? el("code", { class: "inline" }, part) : part));
}

// codeBlock shows code under its language, or another label, with a button to copy it.
export function codeBlock(language, code) {
  return el("div", { class: "code" },
    el("div", { class: "bar" }, el("span", {}, language), copyButton(() => code) || ""),
    el("pre", {}, el("code", {}, code.replace(/\n$/, ""))));
}

// copyButton copies what text() returns. Browsers give pages a clipboard only on https and localhost.
export function copyButton(text) {
  if (!navigator.clipboard) return null;
  return el("button", {
    type: "button", class: "quiet", onclick: async (ev) => {
      const button = ev.currentTarget;
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    },
  }, "Copy");
}
