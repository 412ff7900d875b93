// Which demonstrations the answer read: the last position's attention over the prompt, layer by layer.

import { h, percent } from "./dom.js";
import { layOut } from "./text.js";

/**
 * Return the drawing of an answer of /v1/fewshot/attention over a prompt made of `parts`; `head` is "mean" or a number.
 * Positions that a layer's pattern does not let the last one read are grey and struck through.
 */
export function drawAttention(answer, parts, head) {
  const spans = layOut(answer.tokens.map((t) => ({ t })));
  const places = placesOf(spans, parts);
  return answer.layers.map((layer, i) => drawLayer(layer, i, { spans, places, head }));
}

/** Return the number of heads to choose from. */
export const headsOf = (answer) => Math.max(...answer.layers.map((layer) => layer.weights.length));

function drawLayer(layer, i, { spans, places, head }) {
  const rows = head === "mean" || !(head in layer.weights) ? layer.weights : [layer.weights[head]];
  const weights = spans.map((_, at) => rows.reduce((sum, row) => sum + row[at], 0) / rows.length);
  const most = Math.max(...weights, 1e-9);
  const isAllowed = (at) => layer.allowed?.[at] ?? true;
  const text = spans.map((span, at) =>
    isAllowed(at)
      ? h("span", { "--p": Math.sqrt(weights[at] / most).toFixed(3), title: percent(weights[at]) }, span.text)
      : h("span", { class: "unread", title: "may not be read" }, span.text),
  );
  const sums = places.map(({ name, from, to }) => ({ name, sum: weights.slice(from, to).reduce((a, b) => a + b, 0) }));
  return h(
    "section",
    { class: "layer" },
    h("h4", {}, `Layer ${i + 1} `, h("code", {}, layer.pattern)),
    h("p", { class: "shaded", tabindex: "0" }, text),
    h("table", { class: "sums" }, h("caption", { class: "unseen" }, `Attention of layer ${i + 1} to each part`), h("tbody", {}, sums.map(sumRow))),
  );
}

function sumRow({ name, sum }) {
  return h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, percent(sum)), h("td", { class: "bar", "--p": sum.toFixed(4) }, h("span", {})));
}

/** Return which tokens make each part; what stands before the first, as <|endoftext|> may, is a part of its own. */
function placesOf(spans, parts) {
  const whole = spans.map((span) => span.text).join("");
  let at = whole.length - parts.reduce((sum, part) => sum + part.text.length, 0);
  const places = at > 0 ? [{ name: "Before", end: at }] : [];
  for (const { name, text } of parts) places.push({ name, end: (at += text.length) });
  let from = 0;
  for (const place of places) {
    place.from = from;
    while (from < spans.length && spans[from].start < place.end) from++;
    place.to = from;
  }
  return places;
}
