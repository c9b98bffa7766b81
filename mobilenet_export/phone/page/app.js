// Joins it all: load, check, measure, report; then classify photos with what is loaded.

import * as server from "/page/server.js";
import { croppedPixels, feed, readPhoto } from "/page/pixels.js";
import { findGpu, hasSimd, open, placements } from "/page/engines.js";
import { breathe, race } from "/page/measure.js";

const $ = (id) => document.getElementById(id);
const page = (sessionStorage.page ??= Array.from(crypto.getRandomValues(new Uint8Array(8)), (x) => x.toString(16)).join(""));
const state = { job: null, gpu: null, loaded: [], notes: [], camera: null, firstResult: 0, current: null };

// The page's parts

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, share = null) {
  $("status").textContent = text;
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

function complain(where, error) {
  const text = error ? (error instanceof Error ? error.message : String(error)) : "";
  $(where).textContent = text;
  $(where).hidden = !text;
}

const milliseconds = (value) => (value === null || value === undefined ? "–" : value.toFixed(value < 10 ? 2 : 1));
const shortName = (file) => `${file.precision} ${file.format === "tflite" ? "TFLite" : "ONNX"}${file.input.type === "uint8" ? ", RGB" : ""}`;
const place = (one) => one.provider === "webgpu" ? `${one.file.runtime}, WebGPU` : one.file.runtime;

function addRow(one) {
  const row = element("tr");
  const name = element("td");
  name.append(element("span", shortName(one.file), "name"), element("small", place(one)));
  const check = element("td"), p50 = element("td", "", "number"), p90 = element("td", "", "number wide");
  check.append(element("span", "…"), element("small"));
  row.append(name, check, p50, p90, element("td", milliseconds(one.file.here_ms), "number"));
  row.title = one.file.path;
  one.row = { row, check, p50, p90 };
  $("rows").append(row);
}

function showCheck(one, verdict, detail) {
  const [word, small] = one.row.check.children;
  word.textContent = verdict;
  word.className = verdict;
  small.textContent = detail;
}

function showTimes(one, times, slowest) {
  one.row.p50.textContent = milliseconds(times.p50_ms);
  const bar = element("div", "", "bar"), filled = element("span");
  filled.style.width = `${(100 * times.p50_ms) / slowest}%`;
  bar.append(filled);
  bar.setAttribute("aria-hidden", "true");
  one.row.p50.append(bar);
  one.row.p90.textContent = milliseconds(times.p90_ms);
}

function showLimits() {
  const secure = window.isSecureContext, told = [];
  if (!secure) {
    told.push("The camera works on https only: start mnx phone with --tls, or choose a photo.");
    told.push("Threads work on https only, so every model runs on one core here.");
    told.push("WebGPU works on https only, so the GPU is not measured.");
  } else {
    if (!navigator.mediaDevices?.getUserMedia) told.push("This browser gives pages no camera: choose a photo.");
    if (!window.crossOriginIsolated) told.push("This browser gives this page no threads, so every model runs on one core.");
    else if (state.job.threads === 1) told.push("Models run on one thread, as asked; mnx phone --threads N measures more.");
    told.push(state.gpu ? "TFLite files also run on the GPU, by WebGPU; ONNX files run on the CPU." : "WebGPU finds no GPU here, so models run on the CPU.");
  }
  $("limits").replaceChildren(...told.map((text) => element("li", text)));
}

// The run

const threads = () => (window.crossOriginIsolated ? state.job.threads : 1);
const input = (one, pixels) => feed(pixels, one.file.input, state.job.preprocess);
const shape = (one) => one.file.input.shape.map((size) => (size === "batch" ? 1 : size));

async function load(one, bytes) {
  if (input(one, new Uint8Array(3)) === null) throw new Error(`this page feeds float32 and RGB files; LiteRT.js takes no ${one.file.input.type} input such as this`);
  one.engine = await open(one.file, bytes, { threads: threads(), provider: one.provider });
}

async function check(one, pictures) {
  const outputs = [];
  for (const pixels of pictures) outputs.push(Array.from(await one.engine.run(input(one, pixels), shape(one))));
  one.outputs = outputs;
  const answer = await server.post("/check", { ...key(one), outputs });
  state.firstResult ||= performance.now();
  showCheck(one, answer.verdict, answer.detail);
  return answer.verdict === "pass";
}

const key = (one) => ({ file: one.file.path, runtime: one.file.runtime, provider: one.provider });

async function loadAndCheck() {
  const pictures = [];
  const all = placements(state.job.files, state.gpu);
  all.forEach(addRow);
  $("results").hidden = $("legend").hidden = false;
  let last = all[0].file;
  const first = server.bytes(last.url); // comes while the images do
  first.catch(() => {});
  for (let index = 0; index < state.job.images; index++) {
    pictures.push(await readPhoto(await server.blob(`/images/${index}`), state.job.preprocess, state.job.limits));
  }
  let bytes = await first;
  for (const [index, one] of all.entries()) {
    say(`Loading ${shortName(one.file)} (${(one.file.bytes / 1e6).toFixed(1)} MB)…`, index / all.length / 2);
    if (last !== one.file) bytes = await server.bytes(one.file.url);
    last = one.file;
    try {
      await load(one, bytes.slice());
    } catch (error) {
      one.refusal = `does not load: ${error?.message ?? error}`;
      showCheck(one, "fail", one.refusal);
      continue;
    }
    await check(one, pictures);
    state.loaded.push(one);
    one.picture = pictures[0];
    await breathe();
  }
  return all;
}

async function measure(all) {
  for (const one of state.loaded) {
    const values = input(one, one.picture), size = shape(one);
    one.rounds_ms = [];
    one.time = { run: () => one.engine.run(values, size), rounds_ms: one.rounds_ms };
  }
  say("Warming up…", 0.5);
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  const repeats = await race(state.loaded.map((one) => one.time), state.job.plan, (share) => say(`Measuring ${state.loaded.length} files in turn: ${(100 * share).toFixed(0)} %`, (1 + share) / 2));
  lock?.release();
  const notes = [`first result ${(state.firstResult / 1000).toFixed(1)} s after the page was opened`];
  if (repeats) notes.push(`${repeats} round${repeats > 1 ? "s were" : " was"} measured again, as the page was hidden or the phone slept`);
  return server.post("/report", await report(all, notes));
}

async function report(all, notes) {
  const told = await navigator.userAgentData?.getHighEntropyValues?.(["model", "platformVersion"]).catch(() => null);
  const version = told?.platform === "Android" ? ` ${told.platformVersion.split(".")[0]}` : "";
  const features = [];
  if (window.isSecureContext) features.push("secure context");
  if (window.crossOriginIsolated) features.push("threads");
  if (state.gpu) features.push(`WebGPU ${state.gpu.info?.vendor ?? ""} ${state.gpu.info?.architecture ?? ""}`.trim());
  return {
    page, notes, features, threads: threads(),
    userAgent: navigator.userAgent, platform: told?.platform ? told.platform + version : "", model: told?.model ?? "",
    cores: navigator.hardwareConcurrency ?? 1, memory_gb: navigator.deviceMemory ?? null,
    rows: all.map((one) => ({ ...key(one), ...(one.refusal ? { refusal: one.refusal } : { outputs: one.outputs, rounds_ms: one.rounds_ms }) })),
  };
}

function showReport(answer) {
  const slowest = Math.max(...answer.rows.map((row) => row.p50_ms));
  const find = ({ file, runtime, provider }) => state.loaded.find((one) => one.file.path === file && one.file.runtime === runtime && one.provider === provider);
  for (const one of state.loaded) one.row.row.classList.remove("best");
  for (const times of answer.rows) showTimes(find(times), times, slowest);
  $("notes").replaceChildren(...answer.notes.map((note) => element("li", note)));
  $("advice").replaceChildren();
  if (answer.recommended) {
    const best = find(answer.recommended);
    best.row.row.classList.add("best");
    $("advice").append(element("strong", `Take ${shortName(best.file)}: ${milliseconds(answer.recommended.p50_ms)} ms`), `In ${place(best)}, the fastest here that passes its check. File: ${best.file.path}`);
    $("model").value = String(state.loaded.indexOf(best));
  } else {
    $("advice").append(element("strong", "No file passed its check here."));
  }
  $("advice").hidden = false;
  $("progress-box").hidden = true;
  $("again").hidden = false;
}

async function run() {
  complain("problem", "");
  try {
    if (!hasSimd()) throw new Error("This browser has no WebAssembly SIMD, which both runtimes need: update it, or use another.");
    state.job = await server.job();
    document.title = $("title").textContent = state.job.title;
    state.gpu = await findGpu();
    showLimits();
    $("device").textContent = `${state.job.files.length} files, ${navigator.hardwareConcurrency ?? 1} cores, ${threads()} thread${threads() > 1 ? "s" : ""}`;
    say("Loading the runtimes…", 0);
    const all = (state.all = await loadAndCheck());
    if (!state.loaded.length) throw new Error("No file of this bundle runs in this browser.");
    offerPhotos();
    showReport(await measure(all));
  } catch (error) {
    $("progress-box").hidden = true;
    complain("problem", error);
  }
}

async function measureAgain() {
  $("again").hidden = true;
  $("progress-box").hidden = false;
  stopCamera();
  complain("problem", "");
  try {
    showReport(await measure(state.all));
  } catch (error) {
    $("progress-box").hidden = true;
    $("again").hidden = false;
    complain("problem", error);
  }
}

// Photos

function offerPhotos() {
  $("model").replaceChildren(...state.loaded.map((one, index) => new Option(`${shortName(one.file)} in ${place(one)}`, String(index))));
  $("model").disabled = $("photo").disabled = false;
  $("camera").disabled = !navigator.mediaDevices?.getUserMedia;
}

function probabilities(outputs) {
  if (state.job.softmax) return outputs;
  const most = outputs.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(outputs, (x) => Math.exp(x - most)), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

async function classify(pixels) {
  const one = state.loaded[Number($("model").value) || 0], start = performance.now();
  const scores = probabilities(await one.engine.run(input(one, pixels), shape(one)));
  const took = performance.now() - start;
  const best = Array.from(scores, (score, index) => ({ score, index })).sort((a, b) => b.score - a.score).slice(0, 5);
  $("top5").replaceChildren(...best.map(({ score, index }) => {
    const item = element("li"), line = element("div"), bar = element("div", "", "bar"), filled = element("span");
    line.append(element("span", state.job.labels[index] ?? `class ${index}`), element("span", `${(100 * score).toFixed(1)} %`));
    filled.style.width = `${100 * score}%`;
    bar.append(filled);
    item.append(line, bar);
    return item;
  }));
  $("took").textContent = `${milliseconds(took)} ms in ${place(one)}`;
  drawSeen(pixels);
  $("answer").hidden = false;
}

function drawSeen(pixels) {
  const side = state.job.preprocess.crop_px, canvas = $("seen"), data = new ImageData(side, side);
  for (let index = 0; index < side * side; index++) {
    data.data.set(pixels.subarray(3 * index, 3 * index + 3), 4 * index);
    data.data[4 * index + 3] = 255;
  }
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(data, 0, 0);
}

async function choosePhoto() {
  const [photo] = $("photo").files;
  $("photo").value = "";
  if (!photo) return;
  stopCamera();
  try {
    state.current = await readPhoto(photo, state.job.preprocess, state.job.limits);
    await classify(state.current);
    complain("photo-problem", "");
  } catch (error) {
    $("answer").hidden = true;
    complain("photo-problem", error);
  }
}

async function toggleCamera() {
  if (state.camera) return stopCamera();
  try {
    state.camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640, height: 480 }, audio: false });
  } catch (error) {
    return complain("photo-problem", `The camera cannot be used: ${error.message}.`);
  }
  complain("photo-problem", "");
  $("camera").textContent = "Stop the camera";
  $("top5").setAttribute("aria-live", "off"); // it would talk without end
  const video = $("video");
  video.srcObject = state.camera;
  try {
    await video.play();
    while (state.camera && video.srcObject) {
      if (video.videoWidth) await classify(croppedPixels(video, video.videoWidth, video.videoHeight, state.job.preprocess));
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    stopCamera();
    complain("photo-problem", error);
  }
}

function stopCamera() {
  state.camera?.getTracks().forEach((track) => track.stop());
  state.camera = null;
  $("video").srcObject = null;
  $("camera").textContent = "Start the camera";
  $("top5").setAttribute("aria-live", "polite");
}

$("again").addEventListener("click", measureAgain);
$("photo").addEventListener("change", choosePhoto);
$("camera").addEventListener("click", toggleCamera);
$("model").addEventListener("change", () => { if (state.current && !state.camera) classify(state.current).catch((error) => complain("photo-problem", error)); });
run();
