// One frame after the other, the most unsure first: a button or a key says what it is. Text is only ever set as text.
"use strict";

const $ = id => document.getElementById(id);
const KEYS = "123456789abcdefghijklmnopqrstuvwxyz"; // 0 is "none of them"
let queue = [], classes = [], waiting = 0, busy = false, labelled = 0;
const skipped = new Set();

function put(element, text) {
  element.textContent = text;
}
function notice(text) {
  put($("notice"), text);
  $("notice").hidden = !text;
}

async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(15000), ...options });
  if (response.status === 401) location.replace("/");
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}
const post = (path, content) =>
  ask(path, { method: "POST", headers: { "x-edgenn": "1", "content-type": "application/json" }, body: JSON.stringify(content) });

async function load() {
  const told = await ask("/unlabelled.json");
  waiting = told.waiting;
  // Those that were skipped come last.
  queue = [...told.frames.filter(it => !skipped.has(it.name)), ...told.frames.filter(it => skipped.has(it.name))];
  if (told.classes.join("\n") !== classes.join("\n") || !$("classes").children.length) {
    classes = told.classes;
    $("classes").replaceChildren(...classes.map((label, number) => button(label, KEYS[number])));
  }
}
function button(label, key) {
  const made = document.createElement("button"), text = document.createElement("span");
  made.type = "button";
  text.textContent = label;
  made.append(text);
  if (key) made.append(Object.assign(document.createElement("kbd"), { textContent: key }));
  made.addEventListener("click", () => say(label));
  return made;
}

function show() {
  const now = queue[0], picture = $("picture");
  put($("waiting"), waiting === 1 ? "1 frame waits for its label" : `${waiting} frames wait for their label`);
  put($("done"), labelled ? `${labelled} labelled` : "");
  for (const each of document.querySelectorAll(".choices button")) if (each.id !== "undo") each.disabled = !now;
  $("undo").disabled = !labelled;
  picture.hidden = !now;
  $("blank").hidden = Boolean(now);
  if (!now) {
    picture.removeAttribute("src");
    put($("blank"), "Nothing waits for a label. Frames that the model is unsure of will appear here.");
    put($("guess"), "");
    return;
  }
  picture.src = address(now);
  const said = (now.top || []).filter(([, score]) => Number.isFinite(score)).map(([label, score]) => `${label} ${(100 * score).toFixed(0)}%`);
  const when = Number.isFinite(now.time) ? new Date(1000 * now.time).toLocaleString() : "";
  put($("guess"), [when, said.length ? `the model says ${said.join(", ")}` : ""].filter(Boolean).join(" · "));
  const best = now.top && now.top[0] ? now.top[0][0] : null;
  [...$("classes").children].forEach((each, number) => each.classList.toggle("guessed", classes[number] === best));
  if (queue[1]) new Image().src = address(queue[1]);
}
const address = frame => `/unlabelled/${encodeURIComponent(frame.name)}.jpg`;

// Runs one step at a time: a key that is held down must not label what has not been seen.
async function alone(step) {
  if (busy) return;
  busy = true;
  try {
    await step();
    notice("");
  } catch (error) {
    notice(`That did not work: ${error.message}`);
    try { await load(); } catch { /* the notice stands */ }
  } finally {
    busy = false;
    show();
  }
}
const say = label => alone(async () => {
  const now = queue[0];
  if (!now) return;
  waiting = (await post(`/unlabelled/${encodeURIComponent(now.name)}`, { label })).waiting;
  labelled++;
  queue.shift();
  if (queue.length < 2) await load();
});
const skip = () => alone(async () => {
  if (!queue.length) return;
  skipped.add(queue[0].name);
  queue.push(queue.shift());
});
const undo = () => alone(async () => {
  const { name } = await post("/undo", {});
  labelled = Math.max(0, labelled - 1);
  skipped.delete(name);
  await load();
  queue.sort((one, other) => (other.name === name) - (one.name === name));
});

$("none").addEventListener("click", () => say(null));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("picture").addEventListener("load", () => {
  $("frame").style.setProperty("--aspect", `${$("picture").naturalWidth} / ${$("picture").naturalHeight}`);
});
// A file that is damaged, or that has gone: the next one.
$("picture").addEventListener("error", () => {
  if (!queue.length) return;
  skipped.add(queue.shift().name);
  show();
});
addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight") skip();
  else if (event.key === "ArrowLeft") undo();
  else if (event.key === "0") say(null);
  else {
    const number = KEYS.indexOf(event.key.toLowerCase());
    if (number < 0 || number >= classes.length || event.key.length !== 1) return;
    say(classes[number]);
  }
  event.preventDefault();
});
alone(load);
// What has come meanwhile.
setInterval(() => { if (!document.hidden && queue.length < 2) alone(load); }, 5000);
