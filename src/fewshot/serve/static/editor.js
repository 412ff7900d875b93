// The editor: a plain text area, which keyboards and screen readers know, over a layer that draws its colours.
// The layer has the same text in the same type, so that each token's colour lies under its letters.

import { layOut } from "./text.js";

export class Editor {
  constructor(area, layer, { edit }) {
    Object.assign(this, { area, layer, drawn: [], spans: [] });
    area.addEventListener("input", () => edit(area.value, area.selectionEnd));
  }

  /** Show pieces; `mode` is how the probabilities are shown. Only what has changed is drawn again. */
  show(pieces, mode) {
    this.spans = layOut(pieces);
    const looks = this.spans.map(({ piece, text }) => ({ text, ...look(piece, mode) }));
    let same = 0;
    while (same < looks.length && same < this.drawn.length && alike(looks[same], this.drawn[same])) same++;
    while (this.layer.childNodes.length > same) this.layer.lastChild.remove();
    for (let i = same; i < looks.length; i++) {
      const span = document.createElement("span");
      span.textContent = looks[i].text;
      span.className = looks[i].name;
      if (looks[i].p !== null) span.style.setProperty("--p", looks[i].p.toFixed(3));
      span.place = i;
      this.layer.append(span);
    }
    this.layer.append("\u200b"); // so that a line break in the end makes a line here too
    this.drawn = looks;
    const text = this.spans.map((span) => span.text).join("");
    if (text !== this.area.value) {
      const { selectionStart: start, selectionEnd: end } = this.area;
      const wasAtEnd = start === this.area.value.length;
      this.area.value = text;
      if (wasAtEnd) this.area.setSelectionRange(text.length, text.length);
      else this.area.setSelectionRange(Math.min(start, text.length), Math.min(end, text.length));
    }
  }

  /** Return the place of the token under a point of the window, null where there is none. */
  placeAt(x, y) {
    const span = document.elementsFromPoint(x, y).find((element) => element.parentNode === this.layer);
    return span === undefined ? null : span.place;
  }

  /** Return the place of the piece at the caret: the one that it stands before, or the last. */
  placeAtCaret() {
    const at = this.area.selectionStart;
    const place = this.spans.findIndex((span) => span.start <= at && at < span.end);
    return place >= 0 ? place : this.spans.length - 1;
  }

  /** Return where a piece is drawn, its first line. */
  rectOf(place) {
    return this.layer.childNodes[place].getClientRects()[0] ?? this.layer.getBoundingClientRect();
  }

  mark(place) {
    for (const span of this.layer.querySelectorAll(".marked")) span.classList.remove("marked");
    if (place !== null) this.layer.childNodes[place]?.classList?.add("marked");
  }

  scrollToEnd() {
    const box = this.layer.parentNode.parentNode;
    if (box.scrollHeight - box.scrollTop - box.clientHeight < 120) box.scrollTop = box.scrollHeight;
  }
}

/** Return the class of a piece and the number that its colour is made of. */
function look(piece, mode) {
  const written = piece.by === "model" ? "written" : "";
  if (mode === "off" || piece.lp === undefined || piece.lp === null) return { name: written, p: null };
  return { name: `${written} p-${mode}`, p: Math.exp(piece.lp) };
}

const alike = (a, b) => a.text === b.text && a.name === b.name && a.p === b.p;
