// The tree of branches as a list: a chain stays flush, where it parts each branch is set in.

import { $, h } from "./dom.js";
import { textOf } from "./text.js";

const KINDS = { start: "Start", edit: "Typed", complete: "Completion", alternative: "Alternative", preset: "Preset" };

/** Draw the tree; `go` is called with the node that is chosen. */
export function drawBranches(tree, go) {
  const children = new Map();
  for (const node of tree.nodes.values()) {
    if (!children.has(node.parent)) children.set(node.parent, []);
    children.get(node.parent).push(node);
  }
  const focused = document.activeElement?.dataset?.node;
  $("branches").replaceChildren(chain(tree.node(0), tree, children, go));
  if (focused !== undefined) $("branches").querySelector(`[data-node="${focused}"]`)?.focus();
  const [box, current] = [$("branches"), $("branches").querySelector("[aria-current]")];
  if (!current) return;
  const below = current.getBoundingClientRect().bottom - box.getBoundingClientRect().bottom;
  const above = box.getBoundingClientRect().top - current.getBoundingClientRect().top;
  box.scrollTop += below > 0 ? below : above > 0 ? -above : 0; // scrollIntoView would move the page too
}

function chain(node, tree, children, go) {
  const list = h("ul", {});
  for (;;) {
    list.append(h("li", {}, button(node, tree, go)));
    const below = children.get(node.id) ?? [];
    if (below.length === 1) {
      node = below[0];
      continue;
    }
    if (below.length) list.append(h("li", {}, below.map((child) => chain(child, tree, children, go))));
    return list;
  }
}

function button(node, tree, go) {
  const label = labelOf(node, tree);
  const isCurrent = node.id === tree.current;
  return h(
    "button",
    { type: "button", class: `branch ${node.kind}`, "data-node": node.id, "aria-current": isCurrent ? "true" : null, onclick: () => go(node.id), title: label },
    h("span", { class: "kind" }, KINDS[node.kind] ?? node.kind),
    h("span", { class: "label" }, label),
  );
}

function labelOf(node, tree) {
  if (node.kind === "start") return "an empty page";
  if (node.kind === "preset") return String(node.name);
  const pieces = tree.pieces(node.id);
  const own = { complete: node.prompt, alternative: node.prompt - 1 }[node.kind];
  if (own === undefined) return textOf(node.add).slice(-60).trim() || "text taken away";
  return textOf(pieces.slice(own)).slice(0, 60).replaceAll("\n", "↵") || "nothing yet";
}
