// Line charts against K, drawn as SVG, with the numbers in a table beside for those who do not see it.

import { h, percent, svg } from "./dom.js";

const [WIDTH, HEIGHT] = [440, 250];
const FRAME = { left: 60, right: 12, top: 12, bottom: 40 };

/**
 * Return a chart of `lines`, [{name, look, points: [[k, value]]}], values in 0..1, over 0..most; `level` is a line of
 * its own across, {name, value}.
 */
export function lineChart({ title, yTitle, lines, most, level }) {
  const x = (k) => FRAME.left + (k / Math.max(1, most)) * (WIDTH - FRAME.left - FRAME.right);
  const y = (value) => HEIGHT - FRAME.bottom - value * (HEIGHT - FRAME.top - FRAME.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": spoken(title, lines, level) });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(
      svg("line", { class: "grid", x1: x(0), x2: x(most), y1: y(value), y2: y(value) }),
      svg("text", { x: FRAME.left - 8, y: y(value) + 4, "text-anchor": "end" }, `${100 * value}%`),
    );
  }
  const every = most > 8 ? 4 : most > 4 ? 2 : 1;
  for (let k = 0; k <= most; k += every) drawing.append(svg("text", { x: x(k), y: HEIGHT - FRAME.bottom + 18, "text-anchor": "middle" }, String(k)));
  drawing.append(
    svg("text", { x: (x(0) + x(most)) / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "axis" }, "Demonstrations in the prompt (K)"),
    svg("text", { x: 0, y: 0, "text-anchor": "middle", class: "axis", transform: `translate(11 ${(y(0) + y(1)) / 2}) rotate(-90)` }, yTitle),
  );
  if (level) drawing.append(svg("line", { class: "level", x1: x(0), x2: x(most), y1: y(level.value), y2: y(level.value) }));
  for (const { look, points } of lines) {
    if (points.length > 1) drawing.append(svg("polyline", { class: look, points: points.map(([k, value]) => `${x(k)},${y(value)}`).join(" ") }));
    drawing.append(...points.map(([k, value]) => svg("circle", { class: look, cx: x(k), cy: y(value), r: 3 })));
  }
  const names = [...lines, ...(level ? [{ ...level, look: "level" }] : [])];
  return h("figure", {}, h("figcaption", {}, title), drawing, legend(names), numbers(lines));
}

function legend(names) {
  const key = (look) => svg("svg", { class: "chart key", viewBox: "0 0 28 10", "aria-hidden": "true" }, svg("line", { class: look, x1: 0, x2: 28, y1: 5, y2: 5 }));
  return h("p", { class: "chart-legend" }, names.map(({ name, look }) => h("span", {}, key(look), name)));
}

function numbers(lines) {
  const ks = [...new Set(lines.flatMap(({ points }) => points.map(([k]) => k)))].sort((a, b) => a - b);
  const cell = ({ points }, k) => h("td", {}, percentOrNothing(points.find(([other]) => other === k)?.[1]));
  const head = h("tr", {}, h("th", { scope: "col" }, "K"), lines.map(({ name }) => h("th", { scope: "col" }, name)));
  const rows = ks.map((k) => h("tr", {}, h("th", { scope: "row" }, String(k)), lines.map((line) => cell(line, k))));
  return h("details", {}, h("summary", {}, "Numbers"), h("table", { class: "numbers" }, h("thead", {}, head), h("tbody", {}, rows)));
}

const percentOrNothing = (value) => (value === undefined ? "" : percent(value));

function spoken(title, lines, level) {
  const ends = lines.filter(({ points }) => points.length).map(({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    return `${name}: ${percent(first[1])} at K = ${first[0]}, ${percent(last[1])} at K = ${last[0]}`;
  });
  return [title, ...ends, level ? `${level.name}: ${percent(level.value)}` : ""].filter(Boolean).join(". ");
}
