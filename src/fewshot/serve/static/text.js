// The text of the editor as pieces. A piece is either typed text, {text}, or a token of known id,
// {id, t, by: "model" | "prompt", lp, top}: `t` is the API's text of it, `lp` its log-probability, and
// `top` lists [t, id, lp] of the likeliest at its place. Pieces are never changed, only replaced.

const encoder = new TextEncoder();

/** Return the bytes of a token: the API writes those that are no whole characters as bytes:\xf0\x9f. */
export function bytesOf(t) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(t)) return encoder.encode(t);
  return Uint8Array.from(t.slice(6).match(/[0-9a-f]{2}/g), (pair) => parseInt(pair, 16));
}

/** Return whether bytes end inside a character. */
function endsInside(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte < 0x80) return false;
    if (byte >= 0xc0) return byte < 0xf5 && back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2);
  }
  return false;
}

/**
 * Return {piece, text, start, end, group} of every piece. A character of several tokens is shown with the token that
 * completes it; tokens of one group share a character, so they stay or go together.
 */
export function layOut(pieces) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const spans = [];
  let tail = new Uint8Array();
  let group = 0;
  const flush = () => {
    if (!tail.length) return;
    spans.at(-1).text += decoder.decode(); // a replacement character for what was not completed
    tail = new Uint8Array();
    group++;
  };
  for (const piece of pieces) {
    if (piece.text !== undefined) {
      flush();
      spans.push({ piece, text: piece.text, group: group++ });
      continue;
    }
    const bytes = bytesOf(piece.t);
    spans.push({ piece, text: decoder.decode(bytes, { stream: true }), group });
    const joined = new Uint8Array([...tail, ...bytes]).slice(-3);
    tail = endsInside(joined) ? joined : new Uint8Array();
    if (!tail.length) group++;
  }
  flush();
  let at = 0;
  for (const span of spans) {
    span.text = span.text.replaceAll("\r", "␍"); // a text area would make line breaks of them
    span.start = at;
    at += span.text.length;
    span.end = at;
  }
  return spans;
}

export const textOf = (pieces) => layOut(pieces).map((span) => span.text).join("");

/** Join typed text that stands side by side, and drop what is empty. */
export function tidy(pieces) {
  const result = [];
  for (const piece of pieces) {
    const last = result.at(-1);
    if (piece.text === "") continue;
    if (piece.text !== undefined && last?.text !== undefined) result[result.length - 1] = { text: last.text + piece.text };
    else result.push(piece);
  }
  return result;
}

/**
 * Return the pieces after an edit made them read `text` and left the caret at `caret`. What stands before the edit is
 * untouched. Tokens behind it keep their ids and lose their probabilities, which were given another beginning.
 */
export function edited(pieces, text, caret = text.length) {
  const spans = layOut(pieces);
  const old = spans.map((span) => span.text).join("");
  let behind = 0; // the caret tells which of several like signs was taken away
  const mostBehind = Math.min(old.length, text.length - caret);
  while (behind < mostBehind && old[old.length - 1 - behind] === text[text.length - 1 - behind]) behind++;
  let same = 0;
  const most = Math.min(old.length, text.length) - behind;
  while (same < most && old[same] === text[same]) same++;
  if (/[\ud800-\udbff]/.test(old[same - 1] ?? "")) same--; // never between the halves of a character
  if (/[\udc00-\udfff]/.test(old[old.length - behind] ?? "")) behind--;
  const cut = old.length - behind;
  const [before, after] = [[], []];
  for (const members of groups(spans)) {
    const [start, end] = [members[0].start, members.at(-1).end];
    const own = members.map((span) => span.piece);
    if (end <= same) before.push(...own);
    else if (start >= cut) after.push(...own.map(withoutScores));
    else {
      before.push({ text: old.slice(start, Math.max(start, Math.min(end, same))) });
      after.push({ text: old.slice(Math.max(start, Math.min(end, cut)), end) });
    }
  }
  return tidy([...before, { text: text.slice(same, text.length - behind) }, ...after]);
}

function groups(spans) {
  const result = [];
  for (const span of spans) {
    if (result.at(-1)?.[0].group === span.group) result.at(-1).push(span);
    else result.push([span]);
  }
  return result;
}

function withoutScores(piece) {
  return piece.text !== undefined ? piece : { id: piece.id, t: piece.t, by: piece.by };
}

/** Return how many pieces two texts share from their beginnings. */
export function sharedPieces(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && (a[n] === b[n] || JSON.stringify(a[n]) === JSON.stringify(b[n]))) n++;
  return n;
}

/** Return the ids of every piece, a list of lists; typed text is tokenised by itself. */
export async function idsOf(pieces, tokenize) {
  return Promise.all(pieces.map(async (piece) => (piece.text === undefined ? [piece.id] : (await tokenize(piece.text)).tokens)));
}

const rounded = (lp) => (lp === null ? null : Math.round(lp * 1e4) / 1e4); // sessions take half the room

/** Return pieces of the tokens of a choice of the API: its `logprobs` and `token_ids`. */
export function tokenPieces(choice, by) {
  const { tokens, token_logprobs: values, top_logprobs: tops, top_token_ids: ids } = choice.logprobs;
  return tokens.map((t, i) => ({
    id: choice.token_ids[i],
    t,
    by,
    lp: rounded(values[i]),
    top: tops[i] && Object.entries(tops[i]).map(([other, lp]) => [other, ids[i][other], rounded(lp)]).sort((a, b) => b[2] - a[2]),
  }));
}
