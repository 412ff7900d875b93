// What a person sees: a text that goes on, and how sure the model is of an answer after 0, 1, 2, ... demonstrations.

const data = JSON.parse(document.getElementById("data").textContent);
const model = new Model(data);
const tokenizer = new Tokenizer(data.tokenizer);
const at = (id) => document.getElementById(id);
const pause = () => new Promise((done) => setTimeout(done));

function ids(text) { // of a text, with the end of a text before it: so a model sees the beginning of one
  return [tokenizer.end, ...tokenizer.encode(text)].slice(-model.config.n_ctx);
}

function readAll(tokens) {
  const cache = model.start();
  let hidden = null;
  for (const token of tokens) hidden = model.read(token, cache);
  return { cache, hidden };
}

let running = 0;
async function write() {
  const mine = ++running;
  const out = at("written"), prompt = at("prompt").value;
  try {
    at("problem").textContent = "";
    let tokens = ids(prompt);
    let { cache, hidden } = readAll(tokens);
    const written = [];
    at("stop").disabled = false;
    for (let n = Number(at("count").value); n > 0 && mine === running; n -= 1) {
      const next = sample(model.logits(hidden), Number(at("temperature").value), Number(at("top-p").value));
      if (next === tokenizer.end) break;
      written.push(next);
      out.replaceChildren(prompt, Object.assign(document.createElement("b"), { textContent: tokenizer.decode(written) }));
      tokens = [...tokens, next];
      // Beyond the context the second half of the text is read anew.
      if (cache.length === model.config.n_ctx) ({ cache, hidden } = readAll(tokens.slice(-Math.ceil(model.config.n_ctx / 2))));
      else hidden = model.read(next, cache);
      await pause();
    }
  } catch (error) {
    at("problem").textContent = error.message;
  }
  if (mine === running) at("stop").disabled = true;
}

function answerLogProbability(shown, question, answer) {
  const asked = ids([...shown, question].join("\n"));
  const wanted = tokenizer.encode(answer);
  if (asked.length + wanted.length > model.config.n_ctx) throw new RangeError(`the context holds ${model.config.n_ctx} tokens`);
  let { cache, hidden } = readAll(asked);
  let total = 0;
  for (const token of wanted) {
    total += logProbabilities(model.logits(hidden))[token];
    hidden = cache.length < model.config.n_ctx ? model.read(token, cache) : hidden;
  }
  return total;
}

async function curve() {
  const mine = ++running;
  const shown = at("demonstrations").value.split("\n").filter((line) => line.trim());
  const chances = [];
  try {
    at("problem").textContent = "";
    for (let k = 0; k <= shown.length && mine === running; k += 1) {
      chances.push(Math.exp(answerLogProbability(shown.slice(0, k), at("question").value, at("answer").value)));
      draw(chances, shown.length);
      await pause();
    }
  } catch (error) {
    at("problem").textContent = error.message;
  }
}

function draw(chances, n) {
  const x = (k) => 34 + (k / Math.max(n, 1)) * 350, y = (chance) => 150 - chance * 138;
  const points = chances.map((chance, k) => `${x(k).toFixed(1)},${y(chance).toFixed(1)}`);
  at("curve").innerHTML = [0, 0.5, 1].map((v) => `<line x1="34" x2="384" y1="${y(v)}" y2="${y(v)}"/><text x="28" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("")
    + chances.map((_, k) => `<text x="${x(k)}" y="168" text-anchor="middle">${k}</text>`).join("")
    + `<polyline points="${points.join(" ")}"/>` + points.map((p) => `<circle cx="${p.split(",")[0]}" cy="${p.split(",")[1]}" r="3"/>`).join("");
  at("curve").setAttribute("aria-label", `probability of the answer after 0 to ${chances.length - 1} demonstrations: ${chances.map((c) => c.toFixed(3)).join(", ")}`);
  at("values").textContent = chances.map((chance, k) => `K = ${k}: ${(100 * chance).toFixed(1)}%`).join("   ");
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); write(); });
at("curve-form").addEventListener("submit", (event) => { event.preventDefault(); curve(); });
at("stop").addEventListener("click", () => { running += 1; at("stop").disabled = true; });
at("temperature").addEventListener("input", () => { at("temperature-value").textContent = at("temperature").value; });

window.fewshot = { // for those who check it
  encode: (text) => tokenizer.encode(text),
  begin: () => { window.fewshot.cache = model.start(); },
  read: (tokens) => tokens.map((token) => [...model.logits(model.read(token, window.fewshot.cache))]),
  greedy: (tokens, count) => {
    let { cache, hidden } = readAll(tokens);
    const written = [];
    while (written.length < count) {
      written.push(largest(model.logits(hidden)));
      if (written.length < count) hidden = model.read(written.at(-1), cache);
    }
    return written;
  },
};
