// What a question's curve looks like: the slider over K, the labels' probabilities, before and after a change.

import { lineChart } from "./charts.js";
import { $, h, percent, visible } from "./dom.js";

/** Return the bars of a point of a curve; `before` is the same point before the demonstrations were changed. */
export function bars(question, point, before) {
  if (!point) return h("p", { class: "dim" }, "Not yet known.");
  if (point.skipped) return h("p", { class: "dim" }, "This prompt does not fit the model's context.");
  const rows = question.choices.map((choice, i) => {
    const p = point.probabilities[i];
    const past = before?.probabilities?.[i];
    const isRight = question.answer === i;
    return h(
      "tr",
      { class: point.choice === i ? "chosen" : null },
      h("th", { scope: "row" }, visible(choice), isRight ? h("span", { class: "right" }, " right") : ""),
      h("td", { class: "bar", "--p": p.toFixed(4), "--q": past?.toFixed(4) }, h("span", {}), past === undefined ? "" : h("i", {})),
      h("td", { class: "number" }, percent(p)),
      past === undefined ? "" : h("td", { class: "number dim" }, percent(past)),
    );
  });
  const columns = ["Label", "", "Now", ...(before ? ["Before"] : [])].map((name) => h("th", { scope: "col" }, name));
  return h("table", { class: "bars" }, h("thead", {}, h("tr", {}, columns)), h("tbody", {}, rows));
}

/** Show the point that the slider is at. */
export function showSlider(question, points, before, shots) {
  $("few-k").value = shots;
  const verdict = told(question, points.get(shots));
  $("few-k-value").textContent = `K = ${shots}`;
  $("few-k").setAttribute("aria-valuetext", `${shots} demonstrations. ${verdict}`);
  $("few-verdict").textContent = verdict;
  $("few-bars").replaceChildren(bars(question, points.get(shots), before?.points.get(shots)));
}

function told(question, point) {
  if (!point || point.skipped) return "";
  const pick = `The model's choice: ${visible(question.choices[point.choice])}, ${percent(point.probabilities[point.choice])}`;
  return pick + { true: ", which is right", false: ", which is wrong", null: "" }[String(point.right ?? null)];
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
  if (label === undefined) return $("few-curve").replaceChildren();
  const line = (map) => sorted(map).map((point) => [point.shots, point.probabilities[label] ?? 0]);
  const lines = [{ name: "Now", look: "now", points: line(points) }];
  if (before) lines.push({ name: before.name, look: "before", points: line(before.points) });
  const title = `Probability of the ${question.answer === null ? "chosen" : "right"} label, ${visible(question.choices[label] ?? "")}`;
  $("few-curve").replaceChildren(lineChart({ title, yTitle: "Probability", lines, most, level: { name: "Equal shares", value: 1 / question.choices.length } }));
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
