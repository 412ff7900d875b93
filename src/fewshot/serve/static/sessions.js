// Sessions in the browser's own storage: a name, a tree, the settings. Nothing of them is sent anywhere.

import { DEFAULTS } from "./settings.js";
import { Tree } from "./tree.js";

const CURRENT = "fewshot.current"; // id of the one that is open
const PREFIX = "fewshot.session."; // one entry a session, so that two windows do not lose each other's

export class Sessions {
  constructor() {
    const known = this.ids();
    const last = sessionStorage.getItem(CURRENT) ?? localStorage.getItem(CURRENT);
    if (known.length) this.open(known.includes(last) ? last : known.at(-1));
    else this.create("Untitled");
  }

  /** Return the ids of what can be opened, the oldest first. */
  ids() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX) && isSession(localStorage[key]));
    return keys.map((key) => key.slice(PREFIX.length)).sort();
  }

  create(name, tree = new Tree(), settings = { ...DEFAULTS }) {
    this.id = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`;
    Object.assign(this, { name, tree, settings });
    this.save();
  }

  open(id) {
    Object.assign(this, parseSession(localStorage.getItem(PREFIX + id)), { id });
    this.remember();
  }

  /** Keep the present session; raises where the browser's storage is full. */
  save() {
    try {
      localStorage.setItem(PREFIX + this.id, this.exported());
      this.remember();
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      throw new Error("The browser's storage is full: export this session, and delete some.");
    }
  }

  remember() {
    localStorage.setItem(CURRENT, this.id);
    sessionStorage.setItem(CURRENT, this.id); // each window has its own
  }

  /** Delete the present session and open another. */
  remove() {
    localStorage.removeItem(PREFIX + this.id);
    const left = this.ids();
    if (left.length) this.open(left.at(-1));
    else this.create("Untitled");
  }

  names() {
    return this.ids().map((id) => [id, JSON.parse(localStorage.getItem(PREFIX + id)).name]);
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

function isSession(text) {
  try {
    return Boolean(parseSession(text));
  } catch {
    return false;
  }
}

function isPiece(piece) {
  return typeof piece?.text === "string" || (Number.isInteger(piece?.id) && typeof piece.t === "string");
}
