// The page: one picture at a time, its answers, and the way back to earlier ones.
import { call, json, listen, Refused } from "./api.js";
import { Editor } from "./canvas.js";
import { asked, fillChoices, showPresets } from "./settings.js";

const $ = (id) => document.getElementById(id);
const nodes = []; // pictures so far: {picture, from, view, answers, ops, chosen}
let node = null;
let job = null; // at work
let wanted = null; // the timer of an estimate
let heat = false;
const editor = new Editor($("stage"), () => { $("status").classList.remove("bad"); tools(); estimateSoon(); });

function say(words, bad = false) {
  $("status").textContent = words;
  $("status").classList.toggle("bad", bad);
}

// Every action ends in a sentence where it fails.
const safely = (action) => async (...given) => {
  try {
    await action(...given);
  } catch (error) {
    say(error.message, true);
    if (!(error instanceof Refused)) console.error(error);
  }
};

// --- pictures

const openFile = safely(async (file) => {
  if (!file) return;
  if (job) throw new Refused("A job is at work; wait for it, or stop it, before you open another picture.");
  say("Reading the picture…");
  const picture = await json("/api/pictures", { method: "POST", form: { file } });
  if (job) throw new Refused("A job was started meanwhile; open the picture again when it is done.");
  enter({ picture, from: null, view: picture.view, answers: [], ops: [], chosen: null });
  say(`${picture.name}, ${picture.width}×${picture.height}. Paint over what is to be filled.`);
  $("stage").focus({ preventScroll: true });
});

function enter(next) {
  if (node) node.ops = editor.ops;
  if (!nodes.includes(next)) nodes.push(next);
  node = next;
  $("welcome").hidden = true;
  $("work").hidden = false;
  const { picture } = node;
  $("base").src = node.view;
  $("alpha").hidden = !picture.transparent;
  editor.size = Math.max(4, Math.round(Math.max(picture.width, picture.height) / 16));
  $("size").max = Math.max(64, Math.round(Math.max(picture.width, picture.height) / 3));
  $("size").value = editor.size;
  editor.open(picture.width, picture.height, node.ops);
  warn(picture.warnings);
  choose(node.chosen);
  showHistory();
  tools();
}

function warn(sentences) {
  $("warnings").replaceChildren(...sentences.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
}

function thumb(src, label, words, pressed, act) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.setAttribute("aria-label", words);
  button.setAttribute("aria-pressed", String(pressed));
  button.append(Object.assign(document.createElement("img"), { src, alt: "" }), Object.assign(document.createElement("span"), { textContent: label }));
  button.addEventListener("click", act);
  item.append(button);
  return item;
}

function showHistory() {
  $("history").hidden = nodes.length < 2;
  $("history").replaceChildren(...nodes.map((one, k) => thumb(one.view, k ? `step ${k}` : "start", `Back to picture ${k + 1}`, one === node, () => { if (!job) enter(one); })));
}

// --- answers

function choose(answer) {
  node.chosen = answer;
  $("result").hidden = !answer;
  $("answer").hidden = !answer;
  $("mask").hidden = Boolean(answer) && !job;
  $("cursor").hidden = true;
  if (answer) {
    $("answer").src = answer.view;
    $("badge").textContent = `${answer.changed} known pixels changed`;
    $("badge").classList.toggle("bad", answer.changed > 0);
    $("download").href = `${answer.file}?download=true`;
    $("zip").href = `/api/jobs/${answer.job}/all.zip`;
  }
  showStrip();
  showHeat();
  compare();
}

function showStrip() {
  const painted = thumb(node.view, "0", "The picture with its mask", !node.chosen, () => choose(null));
  $("strip").replaceChildren(...(node.answers.length ? [painted] : []), ...node.answers.map((one, k) =>
    thumb(one.view, String(k + 1), `Answer ${k + 1}`, one === node.chosen, () => choose(one))));
}

function showHeat() {
  const told = node.chosen?.statistics;
  $("show-heat").disabled = !told?.largest;
  const on = heat && Boolean(told?.largest);
  $("heat").hidden = $("heat-box").hidden = $("legend").hidden = !on;
  if (!on) return;
  $("heat").src = `/api/jobs/${node.chosen.job}/files/view_uncertainty.png`;
  $("heat").style.opacity = $("heat-strength").value / 100;
  $("legend-top").textContent = `differ by ±${Math.round(told.largest * 127.5)} of 255`;
}

function compare() {
  const share = Number($("compare").value);
  $("answer").style.clipPath = `inset(0 0 0 ${100 - share}%)`;
  $("divider").hidden = !node.chosen || share === 0 || share === 100;
  $("divider").style.left = `${100 - share}%`;
}

function blink(step = 1) {
  if (!node?.answers.length) return;
  const k = node.answers.indexOf(node.chosen);
  choose(node.answers[(k + step + node.answers.length) % node.answers.length]);
}

function original(on) {
  if (!node?.chosen) return;
  $("answer").hidden = on;
  $("heat").hidden = on || !heat || !node.chosen.statistics?.largest;
}

// --- jobs

function tools() {
  $("undo").disabled = !editor.ops.length;
  $("redo").disabled = !editor.undone.length;
  $("run").hidden = Boolean(job);
  for (const id of ["cancel", "progress"]) $(id).hidden = !job;
  for (const id of ["accept", "discard", "more", "new"]) $(id).disabled = Boolean(job);
}

async function started(answer, mine) {
  if (mine.from && answer.picture.id !== mine.picture.id) { // the accepted answer is a picture of its own now
    mine.picture = answer.picture;
    mine.from = null;
  }
  await follow(answer.id, mine);
}

async function begin() {
  if (!node || job) return;
  clearTimeout(wanted);
  if (editor.empty) throw new Refused("Paint over what is to be filled first.");
  const mine = node; // another picture may be opened before the server answers
  const form = { ...asked(), mask: await editor.file(), samples: $("samples").value };
  say("Starting…");
  await started(mine.from
    ? await json(`/api/jobs/${mine.from.job}/again`, { method: "POST", form: { ...form, sample: mine.from.index } })
    : await json("/api/jobs", { method: "POST", form: { ...form, picture: mine.picture.id } }), mine);
}

async function more() {
  const mine = node;
  const last = mine.answers.at(-1);
  await follow((await json(`/api/jobs/${last.job}/again`, { method: "POST", form: { samples: $("samples").value } })).id, mine);
}

async function follow(id, mine) {
  job = id;
  tools();
  $("progress").removeAttribute("value");
  try {
    await listen(id, (event) => hear(event, id, mine));
  } finally {
    job = null;
    tools();
    if (node === mine) choose(mine.chosen ?? mine.answers[0] ?? null);
  }
}

function hear(event, id, mine) {
  if (event.event === "queued" && event.ahead) say(`Waiting for ${event.ahead} other job${event.ahead > 1 ? "s" : ""}…`);
  else if (event.event === "loading") say(`Loading ${event.what}…`);
  else if (event.event === "planned") {
    warn(event.warnings);
    say(`About ${Math.max(1, Math.round(event.seconds))} s, ${event.evaluations} calls of the prior.`);
  } else if (event.event === "step") {
    $("progress").value = event.share;
    const left = event.seconds_left === null ? "" : `, ${Math.max(1, Math.round(event.seconds_left))} s left`;
    say(`Answer ${event.samples[0] + 1}: ${Math.round(100 * event.share)} %${left}`);
  } else if (event.event === "preview" && mine === node && !mine.chosen) {
    $("answer").src = `/api/jobs/${id}/files/preview.png?n=${Date.now()}`;
    $("answer").hidden = false;
    $("answer").style.clipPath = "";
    $("mask").hidden = true;
  } else if (event.event === "sample") {
    const files = `/api/jobs/${id}/files`;
    const answer = { ...event, job: id, view: `${files}/view_${event.index}.png`, file: `${files}/${event.file}`, statistics: null };
    mine.answers.push(answer);
    if (mine !== node) return; // another picture is shown
    if (mine.answers.length === 1) choose(answer);
    else showStrip();
  } else if (event.event === "statistics") {
    for (const one of mine.answers) if (one.job === id) one.statistics = event;
  } else if (event.event === "end") {
    const words = { done: "Done. Choose an answer: keys 1 to 9.", cancelled: `Stopped after ${event.finished} answers.` };
    say(event.message ?? words[event.state]);
  } else if (event.event === "failed") {
    const words = event.message;
    say(words[0].toUpperCase() + words.slice(1), true);
  }
}

function accept() {
  if (!node?.chosen || job) return;
  const { chosen, picture } = node;
  enter({ picture: { ...picture, warnings: [] }, from: chosen, view: chosen.view, answers: [], ops: [], chosen: null });
  say("Accepted. Paint over another part, or download it.");
}

async function discard() {
  if (!node?.chosen || job) return;
  node.answers = node.answers.filter((one) => one !== node.chosen);
  choose(node.answers[0] ?? null);
}

// What the default preset would take, once the hand rests.
function estimateSoon() {
  clearTimeout(wanted);
  wanted = setTimeout(async () => {
    if (job || !node || node.from || $("method").value || editor.empty) return;
    try {
      const form = { picture: node.picture.id, mask: await editor.file(), samples: $("samples").value, prior: $("prior").value, estimate: true };
      const { id } = await json("/api/jobs", { method: "POST", form });
      await listen(id, (event) => { if (event.event === "planned") showPresets(event.seconds); });
      await call(`/api/jobs/${id}?forget=true`, { method: "DELETE" });
    } catch {
      showPresets(null); // a busy server has no time for estimates; Fill says what is wrong
    }
  }, 800);
}

// --- masks

const adjust = safely(async (operation) => {
  const form = { picture: node.picture.id, operation, pixels: $("pixels").value, mask: editor.empty ? null : await editor.file() };
  if (operation === "color") Object.assign(form, { color: $("color").value, tolerance: $("tolerance").value });
  await editor.take(await (await call("/api/masks/adjust", { method: "POST", form })).blob());
  choose(null);
});

async function saveMask() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await editor.file());
  link.download = `${node.picture.name}_mask.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function pick(tool) {
  editor.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  editor.apply();
  if (node?.chosen && tool !== "pan" && !job) choose(null);
}

function resize(size) {
  editor.size = Math.min(Number($("size").max), Math.max(2, Math.round(size)));
  $("size").value = editor.size;
  editor.place();
}

// --- controls

const keys = {
  b: () => pick("brush"), e: () => pick("eraser"), r: () => pick("rectangle"), l: () => pick("lasso"), h: () => pick("pan"),
  "[": () => resize(editor.size / 1.25), "]": () => resize(editor.size * 1.25 + 1),
  "+": () => editor.zoom(1.25), "-": () => editor.zoom(0.8), 0: () => editor.fit(),
  R: () => safely(begin)(), n: () => blink(), a: accept, Delete: () => discard(), "?": () => $("help").showModal(),
  o: () => original(true), u: () => $("show-heat").click(), ArrowRight: () => blink(), ArrowLeft: () => blink(-1),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (typing || $("help").open) return;
  if (event.ctrlKey || event.metaKey) {
    if (!node || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    event.shiftKey ? editor.redo() : editor.undo();
  } else if (event.key === " " && (event.target === $("stage") || event.target === document.body)) {
    event.preventDefault();
    editor.space = true;
    editor.apply();
  } else if (/^[1-9]$/.test(event.key)) {
    const answer = node?.answers[Number(event.key) - 1];
    if (answer) choose(answer);
  } else if (keys[event.key] && !event.altKey && (node || event.key === "?")) {
    if (event.key.startsWith("Arrow") && event.target.matches("input")) return;
    keys[event.key]();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") { editor.space = false; editor.apply(); }
  if (event.key === "o") original(false);
});
document.addEventListener("paste", (event) => openFile([...event.clipboardData.files][0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  openFile(event.dataTransfer.files[0]);
});

const on = (id, name, action) => $(id).addEventListener(name, safely(action));
on("file", "change", (event) => openFile(event.target.files[0]));
on("example", "click", async () => openFile(new File([await (await call("example.jpg")).blob()], "coffee.jpg")));
on("help-button", "click", async () => $("help").showModal());
on("size", "input", async (event) => resize(Number(event.target.value)));
on("undo", "click", async () => editor.undo());
on("redo", "click", async () => editor.redo());
on("clear", "click", async () => { while (editor.ops.length) editor.undo(); });
on("zoom-in", "click", async () => editor.zoom(1.25));
on("zoom-out", "click", async () => editor.zoom(0.8));
on("fit", "click", async () => editor.fit());
on("mask-file", "change", async (event) => { await editor.take(event.target.files[0]); choose(null); });
on("mask-save", "click", saveMask);
on("run", "click", begin);
on("cancel", "click", () => call(`/api/jobs/${job}`, { method: "DELETE" }));
on("accept", "click", async () => accept());
on("discard", "click", discard);
on("more", "click", more);
on("show-heat", "change", async (event) => { heat = event.target.checked; showHeat(); });
on("heat-strength", "input", async () => showHeat());
on("compare", "input", async () => compare());
on("new", "click", async () => { $("work").hidden = true; $("welcome").hidden = false; say("Open a picture to begin."); });
$("hold").addEventListener("pointerdown", () => original(true));
for (const name of ["pointerup", "pointerleave", "blur"]) $("hold").addEventListener(name, () => original(false));
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => pick(button.dataset.tool));
for (const button of document.querySelectorAll("[data-adjust]")) button.addEventListener("click", () => adjust(button.dataset.adjust));
$("stage").addEventListener("pointerdown", () => { if (node?.chosen && editor.tool !== "pan" && !editor.space && !job) choose(null); }, true);

// What this browser had here before it was reloaded.
async function restore() {
  const { pictures, jobs } = await json("/api/jobs");
  for (const picture of pictures) {
    const own = jobs.filter((one) => one.picture === picture.id);
    const answers = own.filter((one) => one.id === own.at(-1).id ? one.state !== "running" && one.state !== "queued" : true)
      .flatMap((one) => one.samples.map((sample) => ({ ...sample, job: one.id, statistics: one.statistics })));
    nodes.push({ picture, from: null, view: picture.view, answers, ops: [], chosen: answers[0] ?? null, jobs: own });
  }
  if (!nodes.length) return;
  const last = nodes.at(-1);
  enter(last);
  if (!last.jobs.length) return;
  await editor.take(await (await call(last.jobs.at(-1).mask)).blob());
  const open = last.jobs.find((one) => one.state === "running" || one.state === "queued");
  if (open) await follow(open.id, last);
}

safely(async () => {
  fillChoices(await json("/api/about"));
  tools();
  await restore();
})();
