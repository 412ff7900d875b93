// The few-shot tab: a builder of prompts, and what a model makes of them at K = 0, 1, 2, ...

import { drawAttention, headsOf } from "./attention.js";
import { call, events } from "./api.js";
import { Builder } from "./builder.js";
import { curlOf } from "./code.js";
import { curveBody, partsOf, permuted, promptText, repeated, shotsOf, withShuffledLabels } from "./demonstrations.js";
import { $, announce, copy, h, showError } from "./dom.js";
import { showAccuracy, showCurve, showSideBySide, showSlider, Tally } from "./results.js";

const MOST_SHOTS = 16;
const CHANGES = {
  "few-permute": ["permuted", ({ demonstrations }) => permuted(demonstrations, Math.random)],
  "few-shuffle": ["labels shuffled", (question) => withShuffledLabels(question, Math.random)],
  "few-repeat": ["the first one repeated", ({ demonstrations }) => repeated(demonstrations)],
};

export class FewShot {
  constructor() {
    Object.assign(this, { drawn: null, running: null, state: "as written", chance: null, attention: null });
    this.builder = new Builder({ changed: () => this.edited() });
    this.forget();
    for (const id of Object.keys(CHANGES)) $(id).addEventListener("click", () => this.change(...CHANGES[id]));
    $("few-restore").addEventListener("click", () => this.restore());
    $("few-draw").addEventListener("click", () => this.draw());
    $("few-run").addEventListener("click", () => this.ask());
    $("few-accuracy-run").addEventListener("click", () => this.ask({ all: true }));
    $("few-stop").addEventListener("click", () => this.running?.abort());
    $("few-k").addEventListener("input", () => this.showPoint(Number($("few-k").value)));
    $("few-attention-run").addEventListener("click", () => this.attend());
    $("few-head").addEventListener("change", () => this.showAttention());
    $("few-copy").addEventListener("click", () => copy(curlOf("/v1/fewshot/curve", curveBody([this.question], MOST_SHOTS)), $("few-copy")));
    this.show();
  }

  get question() {
    return this.builder.question;
  }

  get most() {
    return shotsOf([this.question], MOST_SHOTS);
  }

  /** Fill in the list of tasks, when the tab is opened. */
  async begin() {
    if ($("few-task").options.length) return;
    await this.trying(async () => {
      const { tasks } = await call("/v1/fewshot/tasks");
      $("few-task").replaceChildren(...tasks.map(({ name }) => h("option", {}, name)));
    });
  }

  async trying(f) {
    showError("");
    try {
      return await f();
    } catch (error) {
      if (error.name !== "AbortError") showError(error.message);
      return null;
    }
  }

  async draw() {
    const body = {
      task: $("few-task").value,
      n_questions: Number($("few-n").value),
      shots: MOST_SHOTS,
      seed: Number($("few-seed").value),
    };
    const answer = await this.trying(() => call("/v1/fewshot/draw", body));
    if (!answer) return;
    this.drawn = answer;
    this.chance = answer.chance;
    this.restore();
    announce(`${answer.questions.length} questions of ${answer.task}`);
  }

  /** Take the questions as they were drawn. */
  restore() {
    if (!this.drawn) return;
    this.state = "as drawn";
    this.builder.fill(structuredClone(this.drawn));
    this.forget();
    this.show();
  }

  forget() {
    Object.assign(this, { points: new Map(), before: null, tally: new Tally(), total: 0, attention: null });
  }

  /** The user wrote into the builder, or went to another question. */
  edited() {
    this.running?.abort();
    const { tally, total } = this;
    this.forget();
    if (this.builder.sameQuestions) Object.assign(this, { tally, total });
    this.show();
  }

  /** Change all demonstrations, ask again what was asked, and keep what came before beside it. */
  async change(name, f) {
    const hadAll = this.total > 0;
    if (this.points.size) this.before = { name: `Before: ${this.state}`, points: this.points, tally: this.tally };
    this.builder.change(f);
    Object.assign(this, { state: name, points: new Map(), tally: new Tally(), attention: null });
    this.show();
    const { before } = this;
    await this.ask();
    if (hadAll && this.before === before && !this.running) await this.ask({ all: true });
  }

  /** Ask one curve: of this question, or of all of them for their accuracy. */
  async ask({ all = false } = {}) {
    if (this.running) return;
    const questions = all ? this.builder.questions : [this.question];
    this.running = new AbortController();
    if (all) Object.assign(this, { tally: new Tally(), total: questions.length });
    else this.points = new Map();
    this.show();
    announce("Asking");
    const body = curveBody(questions, MOST_SHOTS);
    await this.trying(async () => {
      for await (const event of events("/v1/fewshot/curve", body, this.running.signal)) this.take(event, all);
    });
    this.running = null;
    this.show();
    announce(all ? `Accuracy is known for ${this.tally.n} questions` : $("few-verdict").textContent);
  }

  take(event, all) {
    if (event.accuracy && all) this.tally.settle(event.accuracy);
    else if (event.accuracy) return;
    else if (all) this.tally.add(event);
    else this.points.set(event.shots, event);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.showResults();
    });
  }

  show() {
    const isRunning = this.running !== null;
    for (const id of ["few-run", "few-accuracy-run", "few-draw", ...Object.keys(CHANGES)]) $(id).disabled = isRunning;
    $("few-stop").disabled = !isRunning;
    $("few-restore").disabled = isRunning || !this.drawn;
    $("few-state").textContent = `Demonstrations: ${this.state}.`;
    this.showResults();
    this.showAttention();
  }

  showResults() {
    const { question, points, before, most } = this;
    $("few-k").max = most;
    this.showPoint(Math.min(Number($("few-k").value), most));
    showSideBySide(question, points, most);
    showCurve(question, points, before, most);
    if (this.total) showAccuracy({ tally: this.tally, before: before?.tally.n ? before : null, most, chance: this.chance, total: this.total });
    else $("few-accuracy").replaceChildren();
  }

  showPoint(shots) {
    showSlider(this.question, this.points, this.before, shots);
  }

  // --- attention

  async attend() {
    const { question } = this;
    const shots = Number($("few-k").value);
    const answer = await this.trying(() => call("/v1/fewshot/attention", { prompt: promptText(question, shots) }));
    if (!answer) return;
    this.attention = { answer, shots, parts: partsOf(question, shots) };
    const heads = Array.from({ length: headsOf(answer) }, (_, i) => h("option", { value: i }, `Head ${i + 1}`));
    $("few-head").replaceChildren(h("option", { value: "mean" }, "Mean of the heads"), ...heads);
    this.showAttention();
    announce(`Attention at K = ${shots}, ${answer.layers.length} layers`);
  }

  showAttention() {
    $("few-attention").replaceChildren();
    $("few-head").disabled = !this.attention;
    if (!this.attention) return;
    const { answer, shots, parts } = this.attention;
    const head = $("few-head").value === "mean" ? "mean" : Number($("few-head").value);
    $("few-attention").append(
      h("p", { class: "dim" }, `K = ${shots}. The stronger the colour, the more the last position, which gives the answer, reads there. Struck through: the layer's pattern does not let it.`),
      ...drawAttention(answer, parts, head),
    );
  }
}
