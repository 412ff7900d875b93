// The controls of a completion: they are made from this table, read and written as one plain object.

import { $, h } from "./dom.js";

const NUMBERS = [
  // name, label, default, least, most, step, what it does
  ["max_tokens", "Length", 64, 1, 2048, 1, "Tokens to write at most"],
  ["temperature", "Temperature", 1, 0, 2, 0.05, "0 always takes the likeliest token"],
  ["top_p", "Top P", 1, 0, 1, 0.01, "Draw from the likeliest tokens that together have this probability"],
  ["top_k", "Top K", 0, 0, 200, 1, "Draw from so many likeliest tokens; 0 is no limit"],
  ["presence_penalty", "Presence penalty", 0, -2, 2, 0.1, "Lowers tokens that were written already"],
  ["frequency_penalty", "Frequency penalty", 0, -2, 2, 0.1, "Lowers tokens by how often they were written"],
  ["n", "Branches at once", 1, 1, 16, 1, "So many completions of the same text, each a branch"],
  ["best_of", "Best of", 1, 1, 20, 1, "Write so many and keep the likeliest; above the branches it cannot be streamed"],
];
const TEXTS = [
  ["stop", "Stop sequences", "One a line; \\n is a line break", true],
  ["start_text", "Inject start text", "Put behind your text before it is sent; \\n is a line break", false],
  ["restart_text", "Inject restart text", "Put behind what was written; \\n is a line break", false],
  ["seed", "Seed", "Empty: another one each time", false],
];

export const DEFAULTS = Object.freeze({
  ...Object.fromEntries(NUMBERS.map(([name, , value]) => [name, value])),
  ...Object.fromEntries(TEXTS.map(([name]) => [name, ""])),
  show: "off",
});

/** Put the controls into the page; `changed` is called after each change. */
export function makeSettings(changed) {
  for (const [name, label, value, min, max, step, help] of NUMBERS) {
    const number = h("input", { type: "number", id: `set-${name}`, min, max, step, value, "aria-describedby": `help-${name}` });
    const slide = h("input", { type: "range", min, max, step, value, "aria-label": label, "aria-describedby": `help-${name}`, id: `slide-${name}` });
    number.addEventListener("input", () => (slide.value = number.value));
    slide.addEventListener("input", () => (number.value = slide.value));
    $("settings").append(
      h("div", { class: "setting", title: help }, h("label", { for: number.id }, label), number, slide, h("small", { id: `help-${name}`, class: "unseen" }, help)),
    );
  }
  for (const [name, label, help, many] of TEXTS) {
    const field = h(many ? "textarea" : "input", { id: `set-${name}`, rows: many ? 2 : null, "aria-describedby": `help-${name}`, autocomplete: "off", spellcheck: "false" });
    $("settings").append(h("div", { class: "setting" }, h("label", { for: field.id }, label), field, h("small", { id: `help-${name}` }, help)));
  }
  $("settings").addEventListener("input", changed);
  $("set-show").addEventListener("change", changed);
}

/** The model's context bounds the length. */
export function boundLength(nCtx) {
  for (const id of ["set-max_tokens", "slide-max_tokens"]) $(id).max = nCtx;
  if (Number($("set-max_tokens").value) >= nCtx) writeSettings({ ...readSettings(), max_tokens: Math.max(1, Math.floor(nCtx / 4)) });
}

export function readSettings() {
  const values = { show: $("set-show").value };
  for (const [name, , value] of NUMBERS) values[name] = $(`set-${name}`).value === "" ? value : Number($(`set-${name}`).value);
  for (const [name] of TEXTS) values[name] = $(`set-${name}`).value;
  return values;
}

export function writeSettings(values) {
  const all = { ...DEFAULTS, ...values };
  for (const [name] of NUMBERS) $(`set-${name}`).value = $(`slide-${name}`).value = all[name];
  for (const [name] of TEXTS) $(`set-${name}`).value = all[name];
  $("set-show").value = all.show;
}

/** Read what stands for a line break or a tab. */
export const unescaped = (text) => text.replace(/\\([nt\\])/g, (_, sign) => ({ n: "\n", t: "\t", "\\": "\\" })[sign]);

/** Return the fields of a completion request; those at the API's defaults are left out. */
export function requestFields(values) {
  const fields = { max_tokens: values.max_tokens, temperature: values.temperature };
  const stops = values.stop.split("\n").filter(Boolean).map(unescaped);
  if (values.top_p !== 1) fields.top_p = values.top_p;
  if (values.top_k > 0) fields.top_k = values.top_k;
  if (values.presence_penalty) fields.presence_penalty = values.presence_penalty;
  if (values.frequency_penalty) fields.frequency_penalty = values.frequency_penalty;
  if (values.n > 1) fields.n = values.n;
  if (values.best_of > values.n) fields.best_of = values.best_of;
  if (stops.length) fields.stop = stops;
  if (values.seed.trim()) {
    fields.seed = Number(values.seed);
    if (!Number.isSafeInteger(fields.seed)) throw new Error(`The seed is ${values.seed}, must be a whole number below 2^53.`);
  }
  return fields;
}
