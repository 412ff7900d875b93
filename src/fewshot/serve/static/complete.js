// Completions: from the pieces of a text to requests, from what comes to nodes of the tree.

import { call, events, tokenize } from "./api.js";
import { requestFields, unescaped } from "./settings.js";
import { idsOf, tidy, tokenPieces } from "./text.js";

const SCORED = { logprobs: 10, return_token_ids: true };

/** Return the prompt of a request: a text as long as all was typed, ids as soon as a token is known by its id. */
export async function promptOf(pieces) {
  if (pieces.every((piece) => piece.text !== undefined)) return pieces.map((piece) => piece.text).join("");
  return (await idsOf(pieces, tokenize)).flat();
}

/** Return the request that "Submit" sends for this text. */
export async function requestOf(pieces, settings, model) {
  const fields = requestFields(settings);
  return { model, prompt: await promptOf(pieces), ...fields, ...SCORED, ...(fields.best_of ? {} : { stream: true }) };
}

/**
 * Complete `base` into new nodes below `parent`. `changed` is called as they grow. Whatever has come stays when `signal`
 * stops it or an error ends it; a node of kind "alternative" stays even without: its last token was chosen.
 */
export async function complete(tree, base, { parent, kind, settings, model, signal, changed }) {
  const request = await requestOf(base, settings, model);
  const prompt = tidy(base).length;
  const nodes = Array.from({ length: settings.n }, () => tree.add(parent, kind, base, { prompt, seed: null, finish: null }));
  tree.go(nodes[0].id);
  changed();
  const take = (answer) => {
    for (const choice of answer.choices) {
      const node = nodes[choice.index];
      node.seed = answer.seed;
      tree.append(node.id, tokenPieces(choice, "model"));
      if (!choice.finish_reason) continue;
      node.finish = choice.finish_reason;
      if (settings.restart_text) tree.append(node.id, [{ text: unescaped(settings.restart_text) }]);
    }
    changed();
  };
  try {
    if (request.stream) for await (const answer of events("/v1/completions", request, signal)) take(answer);
    else take(await call("/v1/completions", request, signal));
  } finally {
    for (const { id } of nodes) {
      if (kind !== "alternative" && tree.pieces(id).length === prompt) tree.remove(id);
    }
  }
}

/**
 * Return the pieces with every typed text as tokens that have probabilities: the prompt is read once more, and
 * nothing is written.
 */
export async function scored(pieces, model) {
  const ids = await idsOf(pieces, tokenize);
  if (!ids.flat().length) return pieces;
  const request = { model, prompt: ids.flat(), max_tokens: 0, echo: true, ...SCORED };
  const tokens = tokenPieces((await call("/v1/completions", request)).choices[0], "prompt");
  let at = 0;
  return pieces.flatMap((piece, i) => {
    const own = tokens.slice(at, (at += ids[i].length));
    return own.map((token) => ({ ...token, by: piece.by ?? "prompt" }));
  });
}
