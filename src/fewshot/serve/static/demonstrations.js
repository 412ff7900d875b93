// Prompts of K demonstrations and a question, and what may be done to the demonstrations. Nothing here knows the page.

/** Return the text that the model reads with the first `shots` demonstrations, as the evaluator joins it. */
export function promptText(question, shots) {
  return partsOf(question, shots).map((part) => part.text).join("");
}

/** Return the parts of that text: [{name, text}]. */
export function partsOf({ description, delimiter, demonstrations, context, contexts, answer }, shots) {
  const parts = demonstrations.slice(0, shots).map((text, i) => ({ name: `Demonstration ${i + 1}`, text: text + delimiter }));
  if (description) parts.unshift({ name: "Description", text: description + delimiter });
  return [...parts, { name: "Question", text: contexts?.[answer ?? 0] ?? context }];
}

/** Return the list in another order: the same for the same `random`. */
export function permuted(list, random) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/**
 * Return [what stands before, label] of a demonstration of a question: it ends with one of the choices; or the label is
 * what stands behind the sign that the question ends with, as "->" or "A:"; or it is the last word.
 */
export function split(demonstration, { context, choices }) {
  const choice = choices.filter((text) => demonstration.endsWith(text)).sort((a, b) => b.length - a.length)[0];
  const sign = context.match(/\S+\s*$/)?.[0];
  const behind = sign ? demonstration.lastIndexOf(sign) : -1;
  const word = demonstration.search(/\s*\S+\s*$/);
  const end = choice && choices.length > 1 ? demonstration.length - choice.length : behind >= 0 ? behind + sign.length : Math.max(0, word);
  return [demonstration.slice(0, end), demonstration.slice(end)];
}

/** Return the demonstrations with each other's labels, so that what they show is no longer true. */
export function withShuffledLabels(question, random) {
  const parts = question.demonstrations.map((text) => split(text, question));
  const labels = permuted(parts.map(([, label]) => label), random);
  return parts.map(([before], i) => before + labels[i]);
}

/** Return as many copies of one demonstration. */
export const repeated = (demonstrations, place = 0) => demonstrations.map(() => demonstrations[place]);

/** Return the body of a curve request over these questions, with every number of shots up to `most`. */
export function curveBody(questions, most) {
  const { description, delimiter } = questions[0];
  const own = questions.map(({ description: _, delimiter: __, ...question }) => question);
  const shots = Array.from({ length: shotsOf(questions, most) + 1 }, (_, k) => k);
  return { description, delimiter, demonstrations: [], questions: own, shots, stream: true };
}

/** Return the most shots that every question has demonstrations for. */
export const shotsOf = (questions, most) => Math.min(most, ...questions.map((question) => question.demonstrations.length));
