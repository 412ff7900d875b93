// Elements of the page. Text is only ever set as text, so nothing a model writes becomes markup.

export const $ = (id) => document.getElementById(id);

/** Make an element: h("button", {class: "quiet", onclick: f, "aria-label": "Close"}, "x"). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an element of a drawing. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Call `f` once things have been quiet for some milliseconds. */
export function debounced(f, milliseconds) {
  let timer = 0;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...args), milliseconds);
  };
  later.now = (...args) => {
    clearTimeout(timer);
    f(...args);
  };
  return later;
}

/** Say something to a screen reader, politely. */
export function announce(text) {
  $("live").textContent = text;
}

/** Show an error in plain text until something else happens; "" hides it. */
export function showError(text) {
  $("error-text").textContent = text;
  $("error").hidden = !text;
}

/** A probability for people. */
export function percent(p) {
  if (p >= 0.9995 && p < 1) return "> 99.9%";
  if (p > 0 && p < 0.0005) return "< 0.1%";
  return `${(100 * p).toFixed(1)}%`;
}

/** A token's text so that it can be seen: spaces and line breaks have signs, parts of characters their bytes. */
export function visible(text) {
  if (text === "") return "(empty)";
  const hex = (sign) => `\\x${sign.charCodeAt(0).toString(16).padStart(2, "0")}`;
  const signs = { "\n": "↵", "\t": "⇥", " ": "·" };
  return text.replace(/^bytes:/, "").replace(/[\n\t ]/g, (sign) => signs[sign]).replace(/[\x00-\x1f\x7f-\xa0\xad\u200b-\u200f]/g, hex);
}

/** Copy text; says so on the button. */
export async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied");
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => (button.textContent = label), 1500);
}
