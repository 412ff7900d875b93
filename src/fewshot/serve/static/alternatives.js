// The table of a token's likeliest alternatives, beside the token. The mouse opens it by resting on a token, the
// keyboard by Alt + Arrow down; arrows go through the rows, Enter goes on from the chosen one, Escape closes it.

import { $, h, percent, visible } from "./dom.js";

export class Alternatives {
  constructor({ pick, closed }) {
    this.box = $("alternatives");
    this.pick = pick;
    this.closed = closed;
    this.place = null;
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("focusout", (event) => {
      if (!this.box.contains(event.relatedTarget) && this.byKeyboard) this.close();
    });
  }

  /** Show the table of a token beside `rect`; with `focus` its first row has the keyboard. */
  open(place, token, rect, { focus, neighbours }) {
    this.byKeyboard = false; // else the table closes as its old rows, and the focus, go
    const rows = (token.top ?? []).map(([t, id, lp]) => this.row(token, t, id, lp));
    const covered = (token.top ?? []).slice(0, 10).reduce((sum, [, , lp]) => sum + Math.exp(lp), 0);
    const isGiven = token.lp !== null && token.lp !== undefined;
    this.box.replaceChildren(
      h("p", { class: "token-title" }, h("b", {}, visible(token.t)), isGiven ? ` ${percent(Math.exp(token.lp))}` : "", h("span", { class: "dim" }, `  token ${token.id}`)),
      rows.length
        ? h("table", {}, h("caption", { class: "unseen" }, "Alternatives; choose one to go on from it"), h("tbody", {}, rows))
        : h("p", { class: "dim" }, isGiven ? "No alternatives are known." : "No probabilities are known here."),
      rows.length ? h("p", { class: "dim" }, `${percent(covered)} covered in the top ${Math.min(10, rows.length)}`) : "",
    );
    Object.assign(this, { place, neighbours, byKeyboard: focus });
    this.box.setAttribute("aria-label", `Alternatives of ${visible(token.t)}`);
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = Math.max(8, Math.min(rect.left, document.documentElement.clientWidth - width - 8));
    const below = rect.bottom + 6;
    const top = below + height < window.innerHeight || rect.top < height + 6 ? below : rect.top - height - 6;
    this.box.style.left = `${left + window.scrollX}px`;
    this.box.style.top = `${top + window.scrollY}px`;
    if (focus) (this.box.querySelector("button") ?? this.box).focus();
  }

  row(token, t, id, lp) {
    const p = Math.exp(lp);
    const isChosen = id === token.id;
    const button = h("button", { type: "button", onclick: () => this.choose(id), title: "Go on from this token" }, visible(t), isChosen ? h("span", { class: "unseen" }, " (chosen)") : "");
    return h("tr", { class: isChosen ? "chosen" : null }, h("th", { scope: "row" }, button), h("td", { class: "number" }, percent(p)), h("td", { class: "bar", "--p": p.toFixed(4) }, h("span", {})));
  }

  choose(id) {
    const place = this.place;
    this.close();
    this.pick(place, id);
  }

  key(event) {
    const buttons = [...this.box.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "ArrowDown") buttons[Math.min(at + 1, buttons.length - 1)]?.focus();
    else if (event.key === "ArrowUp") buttons[Math.max(at - 1, 0)]?.focus();
    else if (event.key === "ArrowLeft") this.neighbours(-1);
    else if (event.key === "ArrowRight") this.neighbours(1);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    if (this.box.hidden) return;
    const hadFocus = this.box.contains(document.activeElement);
    this.byKeyboard = false;
    this.box.hidden = true;
    this.place = null;
    this.closed(hadFocus);
  }
}
