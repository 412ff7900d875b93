// What a question's curve looks like: the slider over K, the labels' probabilities, before and after a change.

import { lineChart } from "./charts.js";
import { $, h, percent, visible } from "./dom.js";

/**
 * Return the probability of a label: its share among several; of an answer that stands alone, its own.
 */
function probability(question, point, i) {
  return question.choices.length > 1 ? point.probabilities[i] : Math.exp(point.logprobs[i]);
}

/** Return the bars of a point of a curve; `before` is the same point before the demonstrations were changed. */
export function bars(question, point, before) {
  if (!point) return h("p", { class: "dim" }, "Not yet known.");
  if (point.skipped) return h("p", { class: "dim" }, "This prompt does not fit the model's context.");
  const past = before && !before.skipped ? before : null;
  const rows = question.choices.map((choice, i) =>
    bar(choice, probability(question, point, i), {
      past: past ? probability(question, past, i) : null,
      isChosen: point.choice === i && question.choices.length > 1,
      isRight: question.answer === i,
    }),
  );
  const head = past && h("thead", {}, h("tr", {}, ["Label", "", "Now", "Before"].map((name) => h("th", { scope: "col" }, name))));
  return h("table", { class: "bars" }, head, h("tbody", {}, rows));
}

function bar(text, p, { past = null, isChosen = false, isRight = false }) {
  return h(
    "tr",
    { class: isChosen ? "chosen" : null },
    h("th", { scope: "row" }, visible(text), isRight ? h("span", { class: "right" }, " right") : ""),
    h("td", { class: "bar", "--p": p.toFixed(4), "--q": past?.toFixed(4) }, h("span", {}), past === null ? "" : h("i", {})),
    h("td", { class: "number" }, percent(p)),
    past === null ? "" : h("td", { class: "number dim" }, percent(past)),
  );
}

/** Return how an answer is likeliest to begin, where there are no labels to choose from. */
function beginnings(question, point) {
  if (question.choices.length > 1 || !point?.first_token) return [];
  const rows = point.first_token.slice(0, 5).map(([text, logprob]) => bar(text, Math.exp(logprob), {}));
  return [h("h4", {}, "How the answer is likeliest to begin"), h("table", { class: "bars" }, h("tbody", {}, rows))];
}

/** Show the point that the slider is at. */
export function showSlider(question, points, before, shots) {
  const point = points.get(shots);
  $("few-k").value = shots;
  const verdict = told(question, point);
  $("few-k-value").textContent = `K = ${shots}`;
  $("few-k").setAttribute("aria-valuetext", `${shots} demonstrations. ${verdict}`);
  $("few-verdict").textContent = verdict;
  $("few-bars").replaceChildren(bars(question, point, before?.points.get(shots)), ...beginnings(question, point));
}

function told(question, point) {
  if (!point || point.skipped) return "";
  const fewer = point.n_demonstrations < point.shots ? ` Only ${point.n_demonstrations} demonstrations fit the context.` : "";
  if (question.choices.length === 1) {
    const end = { true: "and is the likeliest", false: "and is not the likeliest" }[String(point.right)] ?? "";
    return `${visible(question.choices[0])} has ${percent(Math.exp(point.logprobs[0]))} ${end}.${fewer}`;
  }
  const pick = `The model's choice: ${visible(question.choices[point.choice])}, ${percent(point.probabilities[point.choice])}`;
  return `${pick}${{ true: ", which is right", false: ", which is wrong" }[String(point.right)] ?? ""}.${fewer}`;
}

/** Show K = 0, 1 and 8 beside each other, or as many as there are. */
export function showSideBySide(question, points, most) {
  const ks = [...new Set([0, Math.min(1, most), Math.min(8, most)])];
  $("few-cards").replaceChildren(...ks.map((k) => h("section", { class: "card" }, h("h4", {}, `K = ${k}`), bars(question, points.get(k)))));
}

/** Show the probability of the right label (or of the one chosen last) against K, before and after a change. */
export function showCurve(question, points, before, most) {
  const sorted = (map) => [...map.values()].filter((point) => !point.skipped).sort((a, b) => a.shots - b.shots);
  const label = question.answer ?? sorted(points).at(-1)?.choice;
  if (!(label in question.choices)) return $("few-curve").replaceChildren();
  const line = (map) => sorted(map).map((point) => [point.shots, probability(question, point, label)]);
  const lines = [{ name: "Now", look: "now", points: line(points) }];
  if (before) lines.push({ name: before.name, look: "before", points: line(before.points) });
  const title = `Probability of ${question.answer === null ? "the label chosen last" : "what is right"}, ${visible(question.choices[label])}`;
  const level = question.choices.length > 1 ? { name: "Equal shares", value: 1 / question.choices.length } : null;
  $("few-curve").replaceChildren(lineChart({ title, yTitle: "Probability", lines, most, level }));
}

/** Counts of right answers as they come, by K. */
export class Tally {
  constructor() {
    this.counts = new Map();
  }

  add({ shots, right, skipped }) {
    if (skipped || right === null || right === undefined) return;
    const { n, good } = this.counts.get(shots) ?? { n: 0, good: 0 };
    this.counts.set(shots, { n: n + 1, good: good + (right ? 1 : 0) });
  }

  /** The server's own last word. */
  settle(accuracy) {
    this.counts = new Map(accuracy.filter(({ n }) => n > 0).map(({ shots, accuracy: share, n }) => [shots, { n, good: share * n }]));
  }

  get points() {
    return [...this.counts].sort(([a], [b]) => a - b).map(([shots, { n, good }]) => [shots, good / n]);
  }

  get n() {
    return Math.max(0, ...[...this.counts.values()].map(({ n }) => n));
  }
}

/** Show accuracy against K, as figure 1.2 of the GPT-3 paper does. */
export function showAccuracy({ tally, before, most, chance, total }) {
  const lines = [{ name: "Now", look: "now", points: tally.points }];
  if (before) lines.push({ name: before.name, look: "before", points: before.tally.points });
  const title = `Accuracy over ${tally.n} of ${total} questions`;
  const level = chance === null || chance === undefined ? null : { name: "Chance", value: chance };
  $("few-accuracy").replaceChildren(lineChart({ title, yTitle: "Accuracy", lines, most, level }));
}
