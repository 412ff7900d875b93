// "View code": the present request for a shell and for OpenAI's Python client. The key itself is never in it.

import { getKey } from "./api.js";

const OURS = ["top_k", "return_token_ids", "logprob_token_ids"];

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Return a command line that sends `body` to `path`. */
export function curlOf(path, body) {
  const key = getKey() ? ' \\\n  -H "Authorization: Bearer $FEWSHOT_KEY"' : "";
  const unbuffered = body.stream ? "-N " : "";
  return `curl ${unbuffered}${location.origin}${path}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`;
}

/** Return a Python program that sends a completion request. */
export function pythonOf(body) {
  const entries = Object.entries(body).filter(([name]) => name !== "stream");
  const own = entries.filter(([name]) => !OURS.includes(name)).map(([name, value]) => `    ${name}=${python(value)},\n`);
  const ours = entries.filter(([name]) => OURS.includes(name)).map(([name, value]) => `"${name}": ${python(value)}`);
  const key = getKey() ? 'os.environ["FEWSHOT_KEY"]' : '"none"';
  const extra = ours.length ? `    extra_body={${ours.join(", ")}},\n` : "";
  const call = (stream) => `client.completions.create(\n${own.join("")}${extra}${stream ? "    stream=True,\n" : ""})`;
  const run = body.stream
    ? `for chunk in ${call(true)}:\n    for choice in chunk.choices:\n        print(choice.text, end="", flush=True)\n`
    : `for choice in ${call(false)}.choices:\n    print(choice.text)\n`;
  return `${getKey() ? "import os\n\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key=${key})\n${run}`;
}

function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  return JSON.stringify(value);
}
