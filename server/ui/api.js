// Requests to this server, with the key if one was typed in. Without, the browser sends the password it asked for.

const keyName = "pagoda-key";

export const key = {
  get: () => sessionStorage.getItem(keyName) || "",
  set: (value) => (value ? sessionStorage.setItem(keyName, value) : sessionStorage.removeItem(keyName)),
};

export class APIError extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status; // 0: no answer, or one cut off
    this.retryAfter = retryAfter; // seconds, if the server said so
  }
}

// request returns the response, or throws an APIError with the server's own words.
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = "Bearer " + key.get();
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (err) {
    if (err.name === "AbortError") throw err;
    throw new APIError("The server cannot be reached.", 0);
  }
  if (response.ok) return response;
  let message = "HTTP status " + response.status;
  try {
    message = (await response.json()).error.message;
  } catch { /* not JSON: the status has to do */ }
  throw new APIError(message, response.status, Number(response.headers.get("Retry-After")) || undefined);
}

// events yields the data of a response's server-sent events, parsed, until [DONE], which must come.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((err) => {
        throw err.name === "AbortError" ? err : new APIError("The connection to the server was lost.", 0);
      });
      if (done) throw new APIError("The server cut the answer off.", 0);
      buffer += value;
      for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
        const data = buffer.slice(0, end).split("\n").filter((l) => l.startsWith("data:"))
          .map((l) => l.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
