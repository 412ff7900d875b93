// Calls of the server. The key is kept for this tab alone (sessionStorage) and sent in a header, never in an address.

const KEY = "fewshot.key";

export class ApiFailure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => sessionStorage.setItem(KEY, key);

async function send(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (getKey()) headers.Authorization = `Bearer ${getKey()}`;
  const options = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error?.message ?? text;
  } catch {
    // what is no JSON is shown as it is
  }
  if (response.status === 401) document.dispatchEvent(new CustomEvent("key-needed"));
  throw new ApiFailure(message || `The server answered ${response.status}.`, response.status);
}

/** Send a body, return the answer; without a body it is a GET. */
export async function call(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** Send a body, yield the server-sent events as they come. */
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ApiFailure("The connection ended before the answer did.", 0);
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiFailure(event.error.message, 500);
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw new ApiFailure("The connection broke off.", 0);
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

const counted = new Map(); // text -> tokens

/** Return the tokens of a text and the model's context. */
export async function tokenize(text) {
  if (!counted.has(text)) {
    if (counted.size > 200) counted.clear();
    counted.set(text, await call("/tokenize", { prompt: text }));
  }
  return counted.get(text);
}
