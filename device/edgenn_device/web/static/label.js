// One frame after the other, the most unsure first: a button or a key says what it is. Text is only ever set as text.
"use strict";

const $ = id => document.getElementById(id);
const LOST = "The device does not answer; the picture comes when it does.";
const KEYS = "123456789abcdefghijklmnopqrstuvwxyz"; // 0 is "none of them"
let queue = [], classes = [], waiting = 0, busy = false, lost = false;
const skipped = new Set(), labelled = []; // names; labelled in this window, the last of which can be taken back

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
  const now = queue[0];
  let told = await ask(`/unlabelled.json?from=${skipped.size}`);
  // Those that were skipped come again when all others have been seen.
  if (skipped.size && !told.frames.some(it => !skipped.has(it.name))) {
    skipped.clear();
    told = await ask("/unlabelled.json");
  }
  waiting = told.waiting;
  queue = told.frames.filter(it => !skipped.has(it.name));
  // What is looked at stays, whatever has come meanwhile.
  queue.sort((one, other) => (other.name === now?.name) - (one.name === now?.name));
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
  put($("done"), labelled.length ? `${labelled.length} labelled` : "");
  for (const each of document.querySelectorAll(".choices button")) if (each.id !== "undo") each.disabled = !now;
  $("undo").disabled = !labelled.length;
  picture.hidden = !now;
  $("blank").hidden = Boolean(now);
  if (!now) {
    picture.removeAttribute("src");
    put($("blank"), "Nothing waits for a label. Frames that the model is unsure of will appear here.");
    put($("guess"), "");
    return;
  }
  if (picture.getAttribute("src") !== address(now)) picture.src = address(now);
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
    notice(error.message === LOST ? LOST : `That did not work: ${error.message}`);
    try { await load(); } catch { /* the notice stands */ }
  } finally {
    busy = false;
    show();
  }
}
const say = label => alone(async () => {
  const now = seen();
  if (!now) return;
  waiting = (await post(`/unlabelled/${encodeURIComponent(now.name)}`, { label })).waiting;
  labelled.push(now.name);
  queue.shift();
  if (queue.length < 2) await load();
});
const skip = () => alone(async () => {
  const now = seen();
  if (!now) return;
  skipped.add(now.name);
  queue.shift();
  if (queue.length < 2) await load();
});
const undo = () => alone(async () => {
  if (!labelled.length) return;
  // Also of one that can no longer be taken back: the one before it may be.
  const told = await post("/undo", { name: labelled.pop() });
  waiting = told.waiting;
  queue = [told.frame, ...queue.filter(it => it.name !== told.frame.name)];
});
function seen() {
  if (lost) throw new Error(LOST);
  return queue[0];
}

$("none").addEventListener("click", () => say(null));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("picture").addEventListener("load", () => {
  $("frame").style.setProperty("--aspect", `${$("picture").naturalWidth} / ${$("picture").naturalHeight}`);
});
// A file that is damaged, or that has gone: the next one. Where nobody answers it is not the file.
$("picture").addEventListener("error", async () => {
  const now = queue[0];
  if (!now) return;
  const answer = await fetch(address(now), { cache: "no-store", signal: AbortSignal.timeout(15000) }).catch(() => null);
  if (queue[0] !== now) return;
  if (answer && (answer.ok || answer.status === 404)) {
    if (answer.ok) skipped.add(now.name);
    queue.shift();
    show();
  } else {
    lost = true;
    notice(LOST);
  }
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
setInterval(() => {
  if (document.hidden) return;
  if (lost) $("picture").removeAttribute("src"); // and show() tries it again
  if (lost || queue.length < 2) alone(async () => { lost = false; await load(); });
}, 5000);
