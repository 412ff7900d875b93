// A GPT in plain JavaScript: its tokenizer, its forward pass with a cache of keys and values, and sampling.
// `data` is what page.py writes: the shape, what every head reads, the vocabulary, and float32 weights in base64.

const READS = { // whether the query at position q may read the key at k, which is not after it
  dense: () => true,
  banded: (q, k, window) => q - k < window,
  strided: (q, k, stride) => (q - k) % stride === 0,
  block: (q, k, block) => Math.floor(q / block) === Math.floor(k / block),
  columns: (q, k, block, c, i = 0) => k === q || (k % block >= block - (i + 1) * c && k % block < block - i * c),
};

function erf(x) { // Abramowitz and Stegun's series near 0, their continued fraction beyond
  const a = Math.abs(x);
  if (a < 3) {
    let term = a, sum = a;
    for (let n = 1; Math.abs(term) > 1e-17 * sum && n < 200; n += 1) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
  }
  let fraction = a;
  for (let n = 60; n >= 1; n -= 1) fraction = a + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction);
}

const ACTIVATIONS = {
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu: (x) => Math.max(x, 0),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
};

function layerNorm(x, gain, shift) {
  let mean = 0, variance = 0;
  for (const value of x) mean += value;
  mean /= x.length;
  for (const value of x) variance += (value - mean) ** 2;
  const scale = 1 / Math.sqrt(variance / x.length + 1e-5);
  return x.map((value, i) => (value - mean) * scale * gain[i] + shift[i]);
}

function linear(x, weight, bias) { // weight: [out, in], row after row
  const width = x.length, out = new Float64Array(weight.length / width);
  for (let o = 0, at = 0; o < out.length; o += 1) {
    let sum = bias ? bias[o] : 0;
    for (let i = 0; i < width; i += 1, at += 1) sum += weight[at] * x[i];
    out[o] = sum;
  }
  return out;
}

const plus = (a, b) => a.map((value, i) => value + b[i]);

export class Model {
  constructor(data) {
    this.config = data.config;
    this.layers = data.layers;
    const text = atob(data.weights), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    const all = new Float32Array(bytes.buffer);
    this.weights = {};
    for (const [name, first, size] of data.tensors) this.weights[name] = all.subarray(first, first + size);
    this.act = ACTIVATIONS[this.config.activation];
  }

  start() {
    return { length: 0, layers: this.layers.map(() => ({ keys: [], values: [] })) };
  }

  row(name, i) {
    return this.weights[name].subarray(i * this.config.d_model, (i + 1) * this.config.d_model);
  }

  // Read one token more and return the hidden state after it.
  read(token, cache) {
    const at = cache.length;
    if (at >= this.config.n_ctx) throw new RangeError(`the context holds ${this.config.n_ctx} tokens`);
    let x = plus(Float64Array.from(this.row("wte.weight", token)), this.row("wpe.weight", at));
    for (let i = 0; i < this.layers.length; i += 1) x = this.block(x, i, at, cache.layers[i]);
    cache.length = at + 1;
    return this.config.norm_first ? layerNorm(x, this.weights["ln_f.weight"], this.weights["ln_f.bias"]) : x;
  }

  block(x, i, at, cache) {
    const norm = (name, input) => layerNorm(input, this.weights[`h.${i}.${name}.weight`], this.weights[`h.${i}.${name}.bias`]);
    const layer = (name, input) => linear(input, this.weights[`h.${i}.${name}.weight`], this.weights[`h.${i}.${name}.bias`]);
    const attend = (input) => layer("attn.c_proj", this.attend(layer("attn.c_attn", input), i, at, cache));
    const feed = (input) => layer("mlp.c_proj", layer("mlp.c_fc", input).map(this.act));
    if (this.config.norm_first) {
      const middle = plus(x, attend(norm("ln_1", x)));
      return plus(middle, feed(norm("ln_2", middle)));
    }
    const middle = norm("ln_1", plus(x, attend(x)));
    return norm("ln_2", plus(middle, feed(middle)));
  }

  attend(joint, i, at, cache) {
    const { n_heads: heads, d_head: wide } = this.config;
    cache.keys.push(joint.subarray(heads * wide, 2 * heads * wide));
    cache.values.push(joint.subarray(2 * heads * wide));
    const mixed = new Float64Array(heads * wide);
    for (let h = 0; h < heads; h += 1) {
      const parts = this.layers[i][h % this.layers[i].length];
      const keys = [], scores = [];
      for (let k = 0; k <= at; k += 1) {
        if (!parts.some(([name, ...numbers]) => READS[name](at, k, ...numbers))) continue;
        let score = 0;
        for (let d = h * wide; d < (h + 1) * wide; d += 1) score += joint[d] * cache.keys[k][d];
        keys.push(k);
        scores.push(score / Math.sqrt(wide));
      }
      const highest = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - highest));
      const total = weights.reduce((a, b) => a + b);
      keys.forEach((k, n) => {
        const weight = weights[n] / total;
        for (let d = h * wide; d < (h + 1) * wide; d += 1) mixed[d] += weight * cache.values[k][d];
      });
    }
    return mixed;
  }

  logits(hidden) {
    return linear(hidden, this.weights["lm_head.weight"] ?? this.weights["wte.weight"]);
  }
}

export function logProbabilities(logits) {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const total = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - highest), 0)) + highest;
  return logits.map((x) => x - total);
}

export function largest(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i += 1) if (logits[i] > logits[best]) best = i;
  return best;
}

export function sample(logits, temperature, topP) {
  if (temperature <= 0) return largest(logits);
  const chances = [...logProbabilities(logits.map((x) => x / temperature))].map((x, id) => [Math.exp(x), id]);
  chances.sort((a, b) => b[0] - a[0]);
  let total = 0, n = 0;
  while (n < chances.length && (n === 0 || total < topP)) total += chances[n++][0];
  let left = Math.random() * total;
  for (const [chance, id] of chances.slice(0, n)) if ((left -= chance) <= 0) return id;
  return chances[n - 1][1];
}

// Unicode's white space; JavaScript's own \s has one character more and one less.
const BLANK = "\\t-\\r\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORDS = new RegExp(
  ` ?\\p{L}+| ?\\p{N}+|'(?:s|t|re|ve|m|ll|d)| ?[^${BLANK}\\p{L}\\p{N}]+|[${BLANK}]+(?![^${BLANK}])|[${BLANK}]`, "gu");

export class Tokenizer {
  constructor({ kind, tokens, merges, alphabet, end }) {
    Object.assign(this, { kind, tokens, end });
    this.ids = new Map(tokens.map((token, id) => [token, id]));
    this.ranks = new Map(merges.map(([a, b], rank) => [`${a} ${b}`, rank]));
    this.letters = [...alphabet]; // of each byte
    this.bytes = new Map(this.letters.map((letter, byte) => [letter, byte]));
  }

  encode(text) {
    if (this.kind === "chars") return [...text].map((letter) => this.id(letter));
    const ids = [];
    for (const word of text.toWellFormed().match(WORDS) ?? []) {
      const letters = [...new TextEncoder().encode(word)].map((byte) => this.letters[byte]);
      for (const token of this.merged(letters)) ids.push(this.id(token));
    }
    return ids;
  }

  id(token) {
    const id = this.ids.get(token);
    if (id === undefined || id === this.end) throw new RangeError(`the vocabulary has no ${JSON.stringify(token)}`);
    return id;
  }

  merged(parts) {
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i += 1) best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      if (best === Infinity) return parts;
      const joined = [];
      for (let i = 0; i < parts.length; i += 1) {
        if (this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best) joined.push(parts[i] + parts[++i]);
        else joined.push(parts[i]);
      }
      parts = joined;
    }
  }

  decode(ids) {
    if (this.kind === "chars") return ids.map((id) => this.tokens[id] ?? "").join("");
    const utf8 = new TextEncoder();
    const bytes = ids.flatMap((id) => (id === this.end || this.tokens[id] === undefined
      ? [...utf8.encode(this.tokens[id] ?? "")] : [...this.tokens[id]].map((letter) => this.bytes.get(letter))));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }
}
