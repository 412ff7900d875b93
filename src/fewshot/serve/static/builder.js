// The builder of the few-shot tab: the fields of a description, demonstrations and a question. It holds all questions
// that were drawn; the fields show one of them.

import { $, h } from "./dom.js";
import { unescaped } from "./settings.js";

const OWN = {
  description: "",
  delimiter: "\n",
  questions: [
    {
      demonstrations: ["The soup was cold. -> bad", "We laughed all evening. -> good", "The lamp broke at once. -> bad", "A kind and clever book. -> good"],
      context: "The train was late again. ->",
      choices: [" good", " bad"],
      answer: 1,
    },
  ],
};

const escaped = (text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t");

export class Builder {
  constructor({ changed }) {
    this.changed = changed;
    this.sameQuestions = false; // whether the last change only went to another question
    this.fill(structuredClone(OWN));
    $("few-question").addEventListener("change", () => {
      this.at = Number($("few-question").value);
      this.showQuestion();
      this.tell(true);
    });
    $("few-description").addEventListener("input", () => this.write(() => (this.description = $("few-description").value)));
    $("few-delimiter").addEventListener("input", () => this.write(() => (this.delimiter = unescaped($("few-delimiter").value))));
    $("few-context").addEventListener("input", () => this.write(() => (this.own.context = $("few-context").value)));
    $("few-add").addEventListener("click", () => this.add("demonstrations", "few-demonstrations"));
    $("few-add-choice").addEventListener("click", () => this.add("choices", "few-choices"));
  }

  get own() {
    return this.list[this.at];
  }

  /** The questions as whole prompts. */
  get questions() {
    return this.list.map((question) => ({ description: this.description, delimiter: this.delimiter, ...question }));
  }

  get question() {
    return this.questions[this.at];
  }

  /** Take questions as the server draws them. */
  fill({ description, delimiter, questions }) {
    Object.assign(this, { description, delimiter, list: questions, at: 0 });
    $("few-description").value = description;
    $("few-delimiter").value = escaped(delimiter);
    $("few-question").replaceChildren(...questions.map((_, i) => h("option", { value: i }, `Question ${i + 1} of ${questions.length}`)));
    this.showQuestion();
  }

  /** Replace the demonstrations of every question. */
  change(f) {
    for (const question of this.list) if (question.demonstrations.length) question.demonstrations = f(question);
    this.showQuestion();
  }

  write(f) {
    f();
    this.tell(false);
  }

  tell(sameQuestions) {
    this.sameQuestions = sameQuestions;
    this.changed();
  }

  add(what, id) {
    this.own[what].push("");
    this.showQuestion();
    $(id).lastChild.querySelector("textarea, input[type=text]").focus();
    this.tell(false);
  }

  remove(what, i) {
    this.own[what].splice(i, 1);
    if (what === "choices") this.own.contexts?.splice(i, 1);
    if (what === "choices" && this.own.answer !== null) {
      if (this.own.answer === i) this.own.answer = null;
      else if (this.own.answer > i) this.own.answer--;
    }
    this.showQuestion();
    $(what === "choices" ? "few-add-choice" : "few-add").focus();
    this.tell(false);
  }

  showQuestion() {
    const { demonstrations, context, contexts, choices, answer } = this.own;
    $("few-context").value = context;
    $("few-context").parentNode.hidden = $("few-add-choice").hidden = Boolean(contexts); // each label has its own
    $("few-demonstrations").replaceChildren(...demonstrations.map((text, i) => this.demonstration(text, i)));
    $("few-choices").replaceChildren(...choices.map((text, i) => this.choice(text, i, answer)));
  }

  demonstration(text, i) {
    const rows = Math.min(6, text.split("\n").length + Math.floor(text.length / 70));
    const write = (event) => this.write(() => (this.own.demonstrations[i] = event.target.value));
    return h(
      "li",
      {},
      h("textarea", { rows, value: text, "aria-label": `Demonstration ${i + 1}`, oninput: write, spellcheck: "false" }),
      h("button", { type: "button", class: "quiet", "aria-label": `Remove demonstration ${i + 1}`, onclick: () => this.remove("demonstrations", i) }, "Remove"),
    );
  }

  choice(text, i, answer) {
    const write = (event) => this.write(() => (this.own.choices[i] = event.target.value));
    return h(
      "li",
      {},
      h("input", { type: "radio", name: "few-answer", checked: answer === i, "aria-label": `Label ${i + 1} is right`, onchange: () => this.write(() => (this.own.answer = i)) }),
      this.own.contexts && h("textarea", { rows: 2, value: this.own.contexts[i], "aria-label": `Question of label ${i + 1}`, oninput: (event) => this.write(() => (this.own.contexts[i] = event.target.value)) }),
      h("input", { type: "text", value: text, "aria-label": `Label ${i + 1}`, oninput: write, autocomplete: "off", spellcheck: "false" }),
      h("button", { type: "button", class: "quiet", "aria-label": `Remove label ${i + 1}`, onclick: () => this.remove("choices", i) }, "Remove"),
    );
  }
}
