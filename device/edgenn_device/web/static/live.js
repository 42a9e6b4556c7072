// Asks for what is newer than it has seen, shows it, and asks again. Text from the device is only ever set as text.
"use strict";

const $ = id => document.getElementById(id);
const page = [...crypto.getRandomValues(new Uint8Array(8))].map(byte => byte.toString(16).padStart(2, "0")).join("");
const PATIENCE = 15000; // milliseconds for an answer; the device gives one within ten seconds
const PACE = 200; // milliseconds between two state documents: figures that change faster cannot be read
const STALE = 3; // seconds without a frame after which the picture no longer shows what is there

const sleep = time => new Promise(done => setTimeout(done, time));
const percent = value => (Number.isFinite(value) ? `${(100 * value).toFixed(0)}%` : "–");
const ms = value => (Number.isFinite(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : "–");
// Of {results, events}, which not every sink has.
const total = counts => Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0);

function put(element, text) {
  text = String(text);
  if (element.textContent !== text) element.textContent = text;
}

function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  seconds = Math.max(0, Math.round(seconds));
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (response.ok) return response;
  let reason = `the device answers ${response.status}`;
  try { reason = (await response.json()).error || reason; } catch { /* no JSON: its status says it */ }
  const error = new Error(reason);
  error.answered = response.status;
  throw error;
}

function awake() {
  return new Promise(done => {
    if (!document.hidden) return done();
    document.addEventListener("visibilitychange", () => done(), { once: true });
  });
}

// Repeats `step` for ever. After a failure it waits a little longer each time, up to five seconds.
async function forever(step) {
  for (let failed = 0; ;) {
    await awake();
    try {
      await step();
      failed = 0;
      connected();
    } catch (error) {
      failed++;
      if (failed > 1 || error.answered) lost(error);
      await sleep(Math.min(5000, 250 * 2 ** failed) * (0.75 + Math.random() / 2));
    }
  }
}

let away = false;
function lost(error) {
  if (error.answered === 401) return location.replace("/");
  away = true;
  $("health").className = "pill lost";
  put($("health"), "no connection");
  notice(error.answered ? `The device refuses: ${error.message}.` : "The connection to the device is lost. Trying again…");
  $("reasons").hidden = true; // what was wrong then; what is now, nobody knows
  stale("No connection");
}
function connected() {
  if (!away) return;
  away = false;
  notice("");
}
function notice(text) {
  put($("notice"), text);
  $("notice").hidden = !text;
}

// The picture
const picture = $("picture"), frame = $("frame");
let seen = "";
async function showPicture() {
  const response = await ask(`/picture.jpg?page=${page}&seen=${seen}`);
  seen = response.headers.get("x-tag") || seen;
  if (response.status !== 200) return;
  const address = URL.createObjectURL(await response.blob());
  try {
    await new Promise((done, failed) => {
      picture.onload = done;
      picture.onerror = () => failed(new Error("a picture cannot be shown"));
      picture.src = address;
    });
    picture.hidden = false;
    frame.style.setProperty("--aspect", `${picture.naturalWidth} / ${picture.naturalHeight}`);
  } finally {
    URL.revokeObjectURL(address);
  }
}
function stale(text) {
  frame.classList.toggle("stale", Boolean(text) && !picture.hidden);
  $("said").classList.toggle("stale", Boolean(text));
  $("blank").hidden = !text && !picture.hidden;
  put($("blank"), text || "Waiting for the first picture");
}

// Everything beside it
let stateSeen = "", eventsSeen = "";
async function showState() {
  const response = await ask(`/state.json?page=${page}&seen=${stateSeen}`);
  stateSeen = response.headers.get("x-tag") || "";
  const state = await response.json();
  showWho(state);
  showResult(state);
  showLatency(state);
  showDevice(state);
  if (state.events !== eventsSeen) await showEvents();
  tick();
  await sleep(PACE);
}

function showWho(state) {
  put($("device"), state.device);
  document.title = state.result ? `${state.result.label} · ${state.device}` : state.device;
  put($("model"), state.model);
  put($("footer"), `edgenn ${state.version} · ${state.runtime} · ${state.watchers} watching`);
  $("to-label").hidden = state.unlabelled === null;
  put($("unlabelled"), state.unlabelled ?? "");
}

function showResult(state) {
  const result = state.result;
  const age = state.health.last_frame_age_s ?? result?.age_s;
  stale(age > STALE ? `No picture for ${span(age)}` : "");
  $("badge").hidden = !(result && result.skipped);
  put($("badge"), "still");
  if (!result) return;
  put($("label"), result.label);
  $("label").classList.toggle("unknown", result.label === "unknown");
  put($("confidence"), percent(result.confidence));
  const list = $("top");
  while (list.children.length > result.top.length) list.lastChild.remove();
  result.top.forEach(([label, score], number) => {
    let item = list.children[number];
    if (!item || item.classList.contains("none")) {
      item?.remove();
      item = document.createElement("li");
      item.append(document.createElement("span"), document.createElement("span"));
      list.insertBefore(item, list.children[number] || null);
    }
    put(item.firstChild, label);
    put(item.lastChild, percent(score));
    item.style.setProperty("--share", Math.min(1, Math.max(0, score || 0)));
  });
}

function showLatency(state) {
  const health = state.health, points = state.latencies_ms.filter(Number.isFinite);
  put($("fps"), Number.isFinite(health.fps) ? health.fps.toFixed(health.fps > 0 && health.fps < 10 ? 1 : 0) : "–");
  put($("p50"), ms(health.latency_ms?.p50));
  put($("p99"), ms(health.latency_ms?.p99));
  put($("dropped"), (health.dropped ?? 0).toLocaleString("en"));
  const [area, line] = $("spark").children;
  if (points.length < 2) {
    area.setAttribute("d", "");
    line.setAttribute("d", "");
    return;
  }
  const most = Math.max(...points, 0.01), first = 120 - points.length;
  const path = points.map((value, index) => `${index ? "L" : "M"}${first + index} ${(38 - (36 * value) / most).toFixed(2)}`).join("");
  line.setAttribute("d", path);
  area.setAttribute("d", `${path}L119 40L${first} 40Z`);
  put($("scale"), `worst of the last minute ${ms(most)}`);
}

function showDevice(state) {
  const health = state.health, pill = $("health");
  pill.className = `pill ${["ok", "degraded", "failed"].includes(health.state) ? health.state : ""}`;
  put(pill, health.state);
  const reasons = health.reasons || [], list = $("reasons");
  list.hidden = !reasons.length;
  list.className = `notice reasons ${health.state}`;
  if (list.dataset.said !== reasons.join("\n")) {
    list.dataset.said = reasons.join("\n");
    list.replaceChildren(...reasons.map(reason => Object.assign(document.createElement("li"), { textContent: reason })));
  }
  const facts = [
    ["source", state.source],
    ["running for", span(health.uptime_s)],
    ["frames", (health.frames ?? 0).toLocaleString("en")],
  ];
  if (health.bad) facts.push(["unreadable", health.bad.toLocaleString("en")]);
  if (health.delegate) facts.push(["computed by", health.delegate]);
  if (Number.isFinite(health.temperature_c)) facts.push(["temperature", `${health.temperature_c.toFixed(0)} °C`]);
  for (const [name, sink] of Object.entries(health.sinks || {})) {
    if (name === "web") continue;
    const waiting = total(sink.queued) + (sink.spooled ?? 0), dropped = total(sink.dropped) + (sink.spool_dropped ?? 0);
    const told = sink.error || [waiting && `${waiting} waiting`, dropped && `${dropped} dropped`].filter(Boolean).join(", ");
    facts.push([name, told || "ok", Boolean(sink.error)]);
  }
  const table = $("facts");
  while (table.children.length > 2 * facts.length) table.lastChild.remove();
  while (table.children.length < 2 * facts.length) table.append(document.createElement("dt"), document.createElement("dd"));
  facts.forEach(([name, text, wrong], number) => {
    put(table.children[2 * number], name);
    put(table.children[2 * number + 1], text);
    table.children[2 * number + 1].classList.toggle("wrong", Boolean(wrong));
  });
}

// Events
const shown = new Map();
let offset = 0;
async function showEvents() {
  const told = await (await ask("/events.json")).json();
  eventsSeen = told.tag;
  offset = told.now - Date.now() / 1000;
  const list = $("events"), there = new Set(told.events.map(event => event.id));
  for (const [id, item] of shown) if (!there.has(id)) { item.remove(); shown.delete(id); }
  told.events.forEach((event, number) => {
    const item = shown.get(event.id) || newEvent(event.id);
    if (list.children[number] !== item) list.insertBefore(item, list.children[number] || null);
    fill(item, event);
  });
  $("no-events").hidden = told.events.length > 0;
}
function newEvent(id) {
  const item = document.createElement("li"), box = document.createElement("div");
  const title = document.createElement("div"), when = document.createElement("div");
  box.className = "picture";
  title.className = "title";
  when.className = "when";
  title.append(document.createElement("span"), Object.assign(document.createElement("span"), { className: "sure" }));
  item.append(box, title, when);
  shown.set(id, item);
  return item;
}
function fill(item, event) {
  const [box, title] = item.children;
  item.event = event;
  item.classList.toggle("going", event.ended === null);
  item.classList.toggle("unknown", event.label === "unknown");
  put(title.firstChild, event.label);
  title.firstChild.title = event.label;
  put(title.lastChild, percent(event.confidence));
  // The picture of the best frame: another one may have come by its end.
  const address = event.thumbnail && `/${event.thumbnail}?${event.frames}`;
  if (box.dataset.address === String(address)) return;
  box.dataset.address = String(address);
  if (address) box.replaceChildren(Object.assign(new Image(), { src: address, alt: "", loading: "lazy", decoding: "async" }));
  else put(box, "no picture");
}
function tick() {
  const now = Date.now() / 1000 + offset, today = new Date().toDateString();
  for (const item of shown.values()) {
    const { started, ended } = item.event, date = new Date(1000 * (started - offset));
    const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const day = date.toDateString() === today ? "" : `${date.toLocaleDateString([], { day: "numeric", month: "short" })} `;
    put(item.lastChild, `${day}${clock} · ${ended === null ? `now, ${span(now - started)}` : span(ended - started)}`);
  }
}

forever(showPicture);
forever(showState);
