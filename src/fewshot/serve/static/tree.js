// The tree of what was written. A node holds its difference from its parent: `keep` of its pieces, then `add`.
// `history` is the way through the tree that undo goes back and redo forth.

import { sharedPieces, tidy } from "./text.js";

export class Tree {
  constructor(data) {
    this.nodes = new Map((data?.nodes ?? [{ id: 0, parent: null, kind: "start", keep: 0, add: [] }]).map((node) => [node.id, node]));
    this.history = data?.history ?? [0];
    this.at = data?.at ?? 0;
    this.next = 1 + Math.max(...this.nodes.keys());
    this.typing = false; // whether further typing belongs to the present node
    this.known = new Map(); // pieces of nodes that do not change any more
  }

  toJSON() {
    return { nodes: [...this.nodes.values()], history: this.history, at: this.at };
  }

  get current() {
    return this.history[this.at];
  }

  node(id = this.current) {
    return this.nodes.get(id);
  }

  /** Return the whole text of a node as pieces. */
  pieces(id = this.current) {
    if (!this.known.has(id)) {
      const node = this.nodes.get(id);
      const before = node.parent === null ? [] : this.pieces(node.parent).slice(0, node.keep);
      this.known.set(id, [...before, ...node.add]);
    }
    return this.known.get(id);
  }

  children(id) {
    return [...this.nodes.values()].filter((node) => node.parent === id);
  }

  /** Add a node that reads `pieces` below another; `more` is kept with it. */
  add(parent, kind, pieces, more = {}) {
    const node = { id: this.next++, parent, kind, ...more };
    this.nodes.set(node.id, node);
    this.set(node.id, pieces);
    return node;
  }

  /** Replace what a node reads; only for nodes without children. */
  set(id, pieces) {
    const node = this.nodes.get(id);
    const own = tidy(pieces);
    node.keep = sharedPieces(this.pieces(node.parent), own);
    node.add = own.slice(node.keep);
    this.known.set(id, own);
  }

  /** Add tokens to a node that is being written. */
  append(id, pieces) {
    const node = this.nodes.get(id);
    node.add = [...node.add, ...pieces];
    this.known.set(id, [...this.pieces(id), ...pieces]);
  }

  /** What the user typed: a node of its own, which grows until something else happens. */
  edit(pieces) {
    if (this.typing && this.node().kind === "edit" && !this.children(this.current).length) this.set(this.current, pieces);
    else this.go(this.add(this.current, "edit", pieces).id);
    this.typing = true;
  }

  go(id) {
    this.typing = false;
    if (id === this.current) return;
    this.history = [...this.history.slice(0, this.at + 1), id].slice(-500);
    this.at = this.history.length - 1;
  }

  /** Go one step back (-1) or forth (1) in the history; return whether there was one. */
  step(direction) {
    this.typing = false;
    if (!(this.at + direction in this.history)) return false;
    this.at += direction;
    return true;
  }

  /** Take away a node and everything below it. */
  remove(id) {
    const gone = new Set([id]);
    for (const node of this.nodes.values()) if (gone.has(node.parent)) gone.add(node.id);
    const parent = this.nodes.get(id).parent;
    const stays = this.history.map((other) => (gone.has(other) ? parent : other));
    const before = stays.slice(0, this.at + 1).filter((other, i, all) => other !== all[i - 1]);
    const after = stays.slice(this.at + 1).filter((other, i, all) => other !== (i ? all[i - 1] : before.at(-1)));
    this.history = [...before, ...after];
    this.at = before.length - 1;
    for (const other of gone) {
      this.nodes.delete(other);
      this.known.delete(other);
    }
  }
}
