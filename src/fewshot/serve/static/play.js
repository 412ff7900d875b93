// The completion tab: what its buttons and keys do.

import { Alternatives } from "./alternatives.js";
import { tokenize } from "./api.js";
import { drawBranches } from "./branches.js";
import { complete, requestOf, scored } from "./complete.js";
import { curlOf, pythonOf } from "./code.js";
import { $, announce, copy, debounced, h, showError } from "./dom.js";
import { Editor } from "./editor.js";
import { PRESETS } from "./presets.js";
import { makeSettings, readSettings, unescaped, writeSettings } from "./settings.js";
import { edited, textOf } from "./text.js";

export class Play {
  constructor(sessions) {
    Object.assign(this, { sessions, model: null, nCtx: 0, running: null, scored: null });
    this.editor = new Editor($("text"), $("layer"), { edit: (text, caret) => this.edit(text, caret) });
    this.alternatives = new Alternatives({ pick: (place, id) => this.choose(place, id), closed: (hadFocus) => this.closed(hadFocus) });
    this.save = debounced(() => this.keep(), 300);
    this.count = debounced(() => this.showCount(), 250);
    this.branch = debounced(() => drawBranches(this.tree, (id) => this.go(id)), 30);
    makeSettings(() => this.settingsChanged());
    for (const preset of PRESETS) $("presets").append(h("option", {}, preset.name));
    this.listen();
    this.load();
  }

  get tree() {
    return this.sessions.tree;
  }

  /** What the editor shows: the present node, with the probabilities of typed text where they were asked for. */
  get shown() {
    const pieces = this.tree.pieces();
    return this.scored?.of === pieces ? this.scored.pieces : pieces;
  }

  listen() {
    const does = { submit: "submit", stop: "stop", undo: "undo", redo: "redo", regenerate: "regenerate", score: "score", "view-code": "viewCode" };
    for (const [id, method] of Object.entries(does)) $(id).addEventListener("click", () => this[method]());
    $("presets").addEventListener("change", () => this.preset());
    $("reset-settings").addEventListener("click", () => {
      writeSettings({});
      this.settingsChanged();
    });
    $("open-alternatives").addEventListener("click", () => this.openAt(this.editor.placeAtCaret(), true));
    $("text").addEventListener("keydown", (event) => this.key(event));
    $("text").addEventListener("beforeinput", (event) => {
      if (event.inputType === "historyUndo" || event.inputType === "historyRedo") {
        event.preventDefault(); // the tree has its own history
        this[event.inputType === "historyUndo" ? "undo" : "redo"]();
      }
    });
    $("text").addEventListener("blur", () => (this.tree.typing = false));
    this.followMouse();
    for (const button of document.querySelectorAll("[data-copies]")) {
      button.addEventListener("click", () => copy($(button.dataset.copies).textContent, button));
    }
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.alternatives.close());
    addEventListener("pagehide", () => this.save.now());
  }

  key(event) {
    const control = event.ctrlKey || event.metaKey;
    if (control && event.key === "Enter") this.submit();
    else if (control && event.key.toLowerCase() === "z") this[event.shiftKey ? "redo" : "undo"]();
    else if (control && event.key.toLowerCase() === "y") this.redo();
    else if (event.key === "Escape") this.stop();
    else if (event.altKey && event.key === "ArrowDown") this.openAt(this.editor.placeAtCaret(), true);
    else return;
    event.preventDefault();
  }

  /** Show the session that is open. */
  load() {
    writeSettings(this.sessions.settings);
    this.scored = null;
    this.show();
  }

  show() {
    this.editor.show(this.shown, this.sessions.settings.show);
    this.branch();
    this.count();
    const { tree } = this;
    const isWritten = ["complete", "alternative"].includes(tree.node().kind);
    $("submit").disabled = $("score").disabled = this.running !== null;
    $("stop").disabled = this.running === null;
    $("undo").disabled = this.running !== null || tree.at === 0;
    $("redo").disabled = this.running !== null || tree.at === tree.history.length - 1;
    $("regenerate").disabled = this.running !== null || !isWritten;
    this.save();
  }

  keep() {
    try {
      this.sessions.save();
    } catch (error) {
      showError(error.message);
    }
  }

  async showCount() {
    const pieces = this.tree.pieces();
    try {
      const counts = await Promise.all(pieces.map((piece) => (piece.text === undefined ? 1 : tokenize(piece.text).then((answer) => answer.count))));
      const n = counts.reduce((a, b) => a + b, 0);
      $("count").textContent = this.nCtx ? `${n} of ${this.nCtx} tokens` : `${n} tokens`;
    } catch {
      $("count").textContent = ""; // the same fault is told when something is submitted
    }
  }

  settingsChanged() {
    this.sessions.settings = readSettings();
    this.show();
  }

  edit(text, caret) {
    if (this.running) this.stop();
    this.alternatives.close();
    this.tree.edit(edited(this.tree.pieces(), text, caret));
    this.show();
  }

  go(id) {
    if (this.running) this.stop();
    this.tree.go(id);
    this.show();
  }

  undo() {
    this.step(-1, "Undone");
  }

  redo() {
    this.step(1, "Redone");
  }

  step(direction, done) {
    if (this.running || !this.tree.step(direction)) return;
    announce(done);
    this.show();
  }

  submit() {
    const start = unescaped(this.sessions.settings.start_text);
    const base = [...this.tree.pieces(), ...(start ? [{ text: start }] : [])];
    return this.run(base, { parent: this.tree.current, kind: "complete" });
  }

  /** Write the present completion anew, with another seed. */
  regenerate() {
    const node = this.tree.node();
    return this.run(this.tree.pieces().slice(0, node.prompt), { parent: node.parent, kind: node.kind, seed: "" });
  }

  /** Go on from an alternative: its id behind the ids before it, so that no text is tokenised again. */
  choose(place, id) {
    const token = this.shown[place];
    const [t, , lp] = token.top.find(([, other]) => other === id);
    const base = [...this.shown.slice(0, place), { ...token, id, t, lp, by: "model" }];
    return this.run(base, { parent: this.tree.current, kind: "alternative" });
  }

  run(base, options) {
    if (!this.running) this.finished = this.write(base, options);
    return this.finished;
  }

  async write(base, { parent, kind, seed }) {
    showError("");
    const stopper = (this.running = new AbortController());
    const settings = { ...this.sessions.settings, ...(seed === undefined ? {} : { seed }) };
    this.show();
    announce("Writing");
    $("status").textContent = "Writing …";
    let frame = 0;
    const changed = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        this.show();
        this.editor.scrollToEnd();
      });
    };
    let why = "";
    try {
      await complete(this.tree, base, { parent, kind, settings, model: this.model, signal: stopper.signal, changed });
    } catch (error) {
      if (error.name === "AbortError") why = "stopped";
      else {
        why = "ended by an error";
        showError(error.message);
      }
    }
    this.running = null;
    this.tell(why);
    this.show();
  }

  /** Say in one line, and to a screen reader, what was written. */
  tell(why) {
    const node = this.tree.node();
    if (node.prompt === undefined) { // the user went elsewhere meanwhile, or nothing came
      $("status").textContent = why && `The completion was ${why}`;
      return announce($("status").textContent);
    }
    const written = this.tree.pieces().slice(node.prompt).filter((piece) => piece.by === "model");
    const reason = why || { length: "ended at its length", stop: "ended by itself or at a stop sequence" }[node.finish] || "";
    $("status").textContent = `${written.length} tokens written${reason && `, ${reason}`}${written.length && node.seed !== null ? `; seed ${node.seed}` : ""}`;
    announce(`${$("status").textContent}: ${textOf(written)}`);
  }

  /** Stop what is being written; what has come stays. */
  stop() {
    this.running?.abort();
    return this.finished;
  }

  /** Ask for the probabilities of what was typed too. */
  async score() {
    showError("");
    const of = this.tree.pieces();
    try {
      this.scored = { of, pieces: await scored(of, this.model) };
    } catch (error) {
      showError(error.message);
      return;
    }
    if (this.sessions.settings.show === "off") writeSettings({ ...this.sessions.settings, show: "full" });
    this.settingsChanged();
    announce("The probabilities of the whole text are shown");
  }

  preset() {
    const preset = PRESETS.find(({ name }) => name === $("presets").value);
    $("presets").value = "";
    if (!preset) return;
    if (this.running) this.stop();
    this.tree.go(this.tree.add(0, "preset", [{ text: preset.text }], { name: preset.name }).id);
    const { show } = this.sessions.settings;
    writeSettings({ show, ...preset.settings });
    this.settingsChanged();
    $("text").focus();
    $("text").setSelectionRange($("text").value.length, $("text").value.length);
  }

  async viewCode() {
    showError("");
    try {
      const body = await requestOf(this.tree.pieces(), this.sessions.settings, this.model);
      $("code-curl").textContent = curlOf("/v1/completions", body);
      $("code-python").textContent = pythonOf(body);
      $("code").showModal();
    } catch (error) {
      showError(error.message);
    }
  }

  // --- the table of alternatives

  openAt(place, focus) {
    const token = this.shown[place];
    if (token?.t === undefined) {
      if (focus) announce("No token of the model stands here; Score prompt gives probabilities to what you typed");
      return;
    }
    this.editor.mark(place);
    const neighbours = (direction) => this.openAt(place + direction, true);
    this.alternatives.open(place, token, this.editor.rectOf(place), { focus, neighbours });
  }

  closed(hadFocus) {
    this.editor.mark(null);
    if (hadFocus) $("text").focus();
  }

  followMouse() {
    let timer = 0;
    const later = (f, milliseconds) => {
      clearTimeout(timer);
      timer = setTimeout(f, milliseconds);
    };
    const leave = () => later(() => this.alternatives.byKeyboard || this.alternatives.close(), 300);
    $("text").addEventListener("mousemove", (event) => {
      const place = this.editor.placeAt(event.clientX, event.clientY);
      if (place === this.alternatives.place && place !== null) clearTimeout(timer);
      else if (event.buttons || place === null || this.shown[place]?.t === undefined) leave();
      else later(() => this.openAt(place, false), 120);
    });
    $("text").addEventListener("mouseleave", leave);
    $("alternatives").addEventListener("mouseenter", () => clearTimeout(timer));
    $("alternatives").addEventListener("mouseleave", leave);
  }
}
