// The frame of the page: tabs, theme, key, sessions.

import { call, getKey, setKey } from "./api.js";
import { $, h, showError } from "./dom.js";
import { FewShot } from "./fewshot.js";
import { Play } from "./play.js";
import { Sessions } from "./sessions.js";
import { boundLength } from "./settings.js";

const sessions = new Sessions();
const play = new Play(sessions);
const few = new FewShot();

// --- theme: the system's, or one that was chosen

const THEMES = ["system", "light", "dark"];
function setTheme(theme) {
  localStorage.setItem("fewshot.theme", theme);
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}
setTheme(THEMES.find((theme) => theme === localStorage.getItem("fewshot.theme")) ?? "system");
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]));

// --- tabs

const TABS = ["play", "few"];
function openTab(name, focus) {
  for (const other of TABS) {
    $(other).hidden = other !== name;
    $(`tab-${other}`).setAttribute("aria-selected", String(other === name));
    $(`tab-${other}`).tabIndex = other === name ? 0 : -1;
  }
  if (focus) $(`tab-${name}`).focus();
  if (name === "few") few.begin();
}
for (const name of TABS) {
  $(`tab-${name}`).addEventListener("click", () => openTab(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") openTab(TABS.find((other) => other !== name), true);
  });
}

// --- the model and the key

async function begin() {
  try {
    const { data } = await call("/v1/models");
    const { max_model_len: nCtx } = await call("/tokenize", { prompt: "" });
    Object.assign(play, { model: data[0].id, nCtx });
    $("model").textContent = `${data[0].id}, context ${nCtx}`;
    boundLength(nCtx);
    play.settingsChanged();
    showError("");
  } catch (error) {
    if (error.status !== 401) showError(error.message);
  }
}

function showKey(shown, focus) {
  $("key-form").hidden = !shown;
  $("show-key").setAttribute("aria-expanded", String(shown));
  if (shown && focus) $("key").focus();
}
$("show-key").addEventListener("click", () => showKey($("key-form").hidden, true));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value);
  $("key").value = "";
  showKey(false);
  begin();
});
document.addEventListener("key-needed", () => {
  showError(getKey() ? "The server does not take this key." : "The server asks for a key.");
  showKey(true, true);
});
$("hide-error").addEventListener("click", () => showError(""));

// --- sessions

function listSessions() {
  $("session").replaceChildren(...sessions.names().map(([id, name]) => h("option", { value: id }, name)));
  $("session").value = sessions.id;
  $("session-name").value = sessions.name;
}

/** Leave the present session as it is now, then do something that opens another. */
async function change(f) {
  await play.stop();
  play.keep();
  try {
    await f();
  } catch (error) {
    showError(error.message);
  }
  listSessions();
  play.load();
}

$("session").addEventListener("change", () => change(() => sessions.open($("session").value)));
$("session-new").addEventListener("click", () => change(() => sessions.create(`Session ${sessions.ids().length + 1}`)));
$("session-delete").addEventListener("click", () => {
  if (confirm(`Delete the session "${sessions.name}"?`)) change(() => sessions.remove());
});
$("session-name").addEventListener("change", () => {
  sessions.name = $("session-name").value.trim() || "Untitled";
  play.keep();
  listSessions();
});
$("session-export").addEventListener("click", () => {
  const address = URL.createObjectURL(new Blob([sessions.exported()], { type: "application/json" }));
  h("a", { href: address, download: `${sessions.name.replace(/[^\w-]+/g, "_")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
});
$("session-import").addEventListener("click", () => $("session-file").click());
$("session-file").addEventListener("change", async () => {
  const [file] = $("session-file").files;
  if (file) await change(async () => sessions.import(await file.text()));
  $("session-file").value = "";
});

listSessions();
if (matchMedia("(max-width: 800px)").matches) $("settings-fold").open = false;
begin();
