// Sessions in the browser's own storage: a name, a tree, the settings. Nothing of them is sent anywhere.

import { DEFAULTS } from "./settings.js";
import { Tree } from "./tree.js";

const LIST = "fewshot.sessions"; // {order: [id], current: id}
const at = (id) => `fewshot.session.${id}`;

export class Sessions {
  constructor() {
    const list = JSON.parse(localStorage.getItem(LIST) ?? "null");
    this.order = (list?.order ?? []).filter((id) => localStorage.getItem(at(id)) !== null);
    if (this.order.length) this.open(this.order.includes(list.current) ? list.current : this.order[0]);
    else this.create("Untitled");
  }

  create(name, tree = new Tree(), settings = { ...DEFAULTS }) {
    this.id = `${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;
    Object.assign(this, { name, tree, settings });
    this.order.push(this.id);
    this.save();
  }

  open(id) {
    Object.assign(this, parseSession(localStorage.getItem(at(id))), { id });
    this.saveList();
  }

  /** Keep the present session; raises where the browser's storage is full. */
  save() {
    try {
      localStorage.setItem(at(this.id), this.exported());
      this.saveList();
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      throw new Error("The browser's storage is full: export this session, and delete some.");
    }
  }

  saveList() {
    localStorage.setItem(LIST, JSON.stringify({ order: this.order, current: this.id }));
  }

  /** Delete the present session and open another. */
  remove() {
    localStorage.removeItem(at(this.id));
    const place = this.order.indexOf(this.id);
    this.order.splice(place, 1);
    if (this.order.length) this.open(this.order[Math.max(0, place - 1)]);
    else this.create("Untitled");
  }

  names() {
    return this.order.map((id) => [id, id === this.id ? this.name : JSON.parse(localStorage.getItem(at(id))).name]);
  }

  exported() {
    return JSON.stringify({ format: "fewshot session 1", name: this.name, settings: this.settings, tree: this.tree });
  }

  import(text) {
    const { name, tree, settings } = parseSession(text);
    this.create(name, tree, settings);
  }
}

/** Return {name, tree, settings} of an exported session; raises where it is none. */
export function parseSession(text) {
  const wrong = (why) => new Error(`This file is no session of the playground: ${why}.`);
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw wrong("it is no JSON");
  }
  if (data?.format !== "fewshot session 1") throw wrong('"format" is not "fewshot session 1"');
  const nodes = data.tree?.nodes;
  if (!Array.isArray(nodes) || nodes[0]?.parent !== null) throw wrong("it has no tree");
  const ids = new Set();
  for (const node of nodes) {
    if (!Number.isInteger(node.id) || ids.has(node.id)) throw wrong("a node has no number of its own");
    if (node.parent !== null && !ids.has(node.parent)) throw wrong(`node ${node.id} comes before its parent`);
    if (!Number.isInteger(node.keep) || !Array.isArray(node.add) || !node.add.every(isPiece)) throw wrong(`node ${node.id} has no text`);
    ids.add(node.id);
  }
  const { history, at: place } = data.tree;
  if (!Array.isArray(history) || !history.every((id) => ids.has(id)) || !(place in history)) throw wrong("its history is not of its nodes");
  const settings = Object.fromEntries(
    Object.entries(DEFAULTS).map(([name, value]) => [name, typeof data.settings?.[name] === typeof value ? data.settings[name] : value]),
  );
  return { name: String(data.name ?? "Untitled"), tree: new Tree(data.tree), settings };
}

function isPiece(piece) {
  return typeof piece?.text === "string" || (Number.isInteger(piece?.id) && typeof piece.t === "string");
}
