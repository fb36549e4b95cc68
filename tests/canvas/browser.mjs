// Drives ComfyUI's real canvas in headless Chromium. One JSON object on stdout; status 1 where a step failed.
//
//   node browser.mjs --url URL [--vue] [--locale ja] [--size 1600x1000] STEP STEP …
//
//   load=FILE    open a workflow            prompt       workflow and API prompt as the canvas makes them
//   clear        a new, empty workflow      run[=SECS]   queue, wait for the end, return the outputs
//   drop=FILE    drop a file on the canvas  shot=FILE    picture of the graph alone; overlapping nodes
//   click=CSS    click an element           page=FILE    picture of the page as it is
//   eval=JS      value of an expression     wait=JS      wait until an expression is true
//   reload       the page, as with F5
//
// `problems` lists page errors, console errors and warnings, toasts, dialogs, missing nodes, models and media,
// each with the number of its step (0: while the page opened).
// Environment: CANVAS_NODE_MODULES, a node_modules folder that holds playwright-core; CHROMIUM, default /usr/bin/chromium.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, extname, resolve } from "node:path";
import { parseArgs } from "node:util";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

const MIME = {
  ".flac": "audio/flac", ".mp3": "audio/mpeg", ".opus": "audio/ogg", ".ogg": "audio/ogg", ".wav": "audio/wav",
  ".m4a": "audio/mp4", ".json": "application/json", ".png": "image/png", ".webp": "image/webp",
};

// What the frontend says on its own, with any workflow or none.
const NOISE = [
  /\/(user\.css|favicon\.ico)$/,
  /\/api\/userdata/, // 404 where nothing was saved yet
  /legacy queue\/history menu is deprecated/,
  /ComfyApp graph accessed before initialization/,
  /ComfyApp\.open_maskeditor is deprecated/,
  /^Invalid file signature\.$/, // of every mp3 that is dropped: its reader's test is never met
  /Content Security Policy/, // offers for missing files look them up outside; the missing files are reported anyway
  /Refused to connect/,
  /net::ERR_(NAME_NOT_RESOLVED|INTERNET_DISCONNECTED|ABORTED|CONNECTION_REFUSED|BLOCKED_BY_CSP)/,
];

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" },
    vue: { type: "boolean", default: false },
    locale: { type: "string", default: "en" },
    size: { type: "string", default: "1600x1000" },
  },
});

const started = Date.now();
const seconds = (since = started) => Math.round((Date.now() - since) / 10) / 100;
const problems = [];
const steps = [];
let step = 0;

function report(kind, text, where = "") {
  if (NOISE.some((noise) => noise.test(text) || noise.test(where))) return;
  if (problems.some((p) => p.step === step && p.kind === kind && p.text === text)) return;
  problems.push({ step, kind, text, ...(where && { where }) });
}

// -- functions that run in the page

/** The Pinia store of the frontend by this name. */
const STORES = `window.__store = (name) =>
  document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s.get(name);`;

/** Reports every toast that appears. */
function watchToasts() {
  const seen = new WeakSet();
  new MutationObserver(() => {
    for (const toast of document.querySelectorAll(".p-toast-message")) {
      if (seen.has(toast)) continue;
      seen.add(toast);
      const kind = /p-toast-message-(\w+)/.exec(toast.className)?.[1] ?? "info";
      window.reportToast(kind, toast.innerText.replace(/\s+/g, " ").trim());
    }
  }).observe(document, { childList: true, subtree: true });
}

/** What the frontend keeps against the open workflow. */
function complaints() {
  const store = window.__store;
  const found = [];
  const add = (kind, value) => {
    const text = typeof value === "string" ? value : JSON.stringify(value ?? {});
    if (text && text !== "{}") found.push([kind, text]);
  };
  for (const node of store("missingNodesError")?.missingNodesError?.nodeTypes ?? []) add("missing node", node.type ?? node);
  for (const model of store("missingModel")?.missingModelCandidates ?? []) if (model.isMissing) add("missing model", model);
  for (const media of store("missingMedia")?.missingMediaCandidates ?? []) if (media.isMissing) add("missing media", media);
  const errors = store("executionError");
  add("prompt error", errors?.lastPromptError);
  add("node error", errors?.lastNodeErrors);
  add("execution error", errors?.lastExecutionError);
  for (const dialog of store("dialog")?.dialogStack ?? []) {
    if (dialog.visible) add("dialog", `${dialog.key}: ${document.querySelector('[role="dialog"]')?.innerText ?? ""}`);
  }
  return found;
}

/** Queue the open workflow and wait for its end. */
async function runGraph(limit) {
  const { app } = window;
  const ends = ["execution_success", "execution_error", "execution_interrupted"];
  const outputs = {};
  let progress = 0;
  const off = [];
  const on = (type, act) => {
    app.api.addEventListener(type, act);
    off.push(() => app.api.removeEventListener(type, act));
  };
  on("executed", ({ detail }) => (outputs[detail.node] = detail.output));
  on("progress", () => progress++);
  try {
    const end = new Promise((done, fail) => {
      for (const type of ends) on(type, ({ detail }) => done({ ended: type, detail }));
      setTimeout(() => fail(new Error(`The run did not end within ${limit} s`)), limit * 1000);
    });
    end.catch(() => {}); // also where the queue refuses
    await app.queuePrompt(0); // its answer is false for accepted prompts too
    const { lastPromptError, lastNodeErrors } = window.__store("executionError");
    if (lastPromptError || Object.keys(lastNodeErrors ?? {}).length) {
      throw new Error(`Refused: ${JSON.stringify({ ...lastPromptError, nodes: lastNodeErrors })}`);
    }
    return { ...(await end), outputs, progress };
  } finally {
    off.forEach((act) => act());
  }
}

/** Where nodes and groups lie: [x, y, width, height] in graph units. */
function graphBounds() {
  const { nodes, groups } = window.app.rootGraph;
  const boxes = [...nodes.map((n) => n.getBounding?.() ?? n.boundingRect), ...groups.map((g) => g._bounding ?? g.boundingRect)];
  if (!boxes.length) return [0, 0, 400, 300];
  const left = Math.min(...boxes.map((b) => b[0]));
  const top = Math.min(...boxes.map((b) => b[1]));
  return [left, top, Math.max(...boxes.map((b) => b[0] + b[2])) - left, Math.max(...boxes.map((b) => b[1] + b[3])) - top];
}

function showBounds([left, top, width, height], margin) {
  const { canvas } = window.app;
  canvas.deselectAll?.();
  canvas.show_info = false;
  const scale = Math.min(1, (innerWidth - 2 * margin) / width, (innerHeight - 2 * margin) / height);
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = innerWidth / 2 / scale - left - width / 2;
  canvas.ds.offset[1] = innerHeight / 2 / scale - top - height / 2;
  canvas.setDirty(true, true);
  return scale;
}

/** Pairs of titles of nodes that lie on each other as drawn, their title bars included. */
function overlaps() {
  const boxes = window.app.rootGraph.nodes.map((node) => {
    const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const [x, y, width, height] = drawn ? [drawn.x, drawn.y, drawn.width, drawn.height] : node.getBounding();
    return { title: `${node.title} (${node.id})`, x, y, right: x + width, bottom: y + height };
  });
  const found = [];
  boxes.forEach((a, i) => {
    for (const b of boxes.slice(i + 1)) {
      const across = Math.min(a.right, b.right) - Math.max(a.x, b.x);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.y, b.y);
      if (across > 1 && down > 1) found.push([a.title, b.title]);
    }
  });
  return found;
}

// -- the steps

async function settle(page) {
  await page.waitForFunction(() => !window.__store("missingModel")?.isRefreshingMissingModels);
  await page.waitForTimeout(1000); // files are looked for, widgets drawn, warnings raised after the load itself
}

const prompt = (page) => page.evaluate(async () => JSON.parse(JSON.stringify(await window.app.graphToPrompt())));

const STEPS = {
  async load(page, file) {
    const workflow = JSON.parse(readFileSync(file, "utf8"));
    await page.evaluate(([w, name]) => window.app.loadGraphData(w, true, true, name), [workflow, basename(file, ".json")]);
    await settle(page);
    return { nodes: await page.evaluate(() => window.app.rootGraph.nodes.length) };
  },
  async clear(page) {
    await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.NewBlankWorkflow"));
    await page.waitForFunction(() => window.app.rootGraph.nodes.length === 0);
  },
  async drop(page, file) {
    const type = MIME[extname(file).toLowerCase()] ?? "";
    const data = readFileSync(file).toString("base64");
    await page.evaluate(async ([data, name, type]) => {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      await window.app.handleFile(new File([bytes], name, { type }));
    }, [data, basename(file), type]);
    await page.waitForFunction(() => window.app.rootGraph.nodes.length > 0, null, { timeout: 15000 });
    await settle(page);
    return await prompt(page);
  },
  prompt,
  async run(page, limit) {
    const result = await page.evaluate(runGraph, Number(limit || 120));
    await settle(page);
    return result;
  },
  async shot(page, file) {
    const before = page.viewportSize();
    await page.evaluate(() => {
      window.__store("dialog")?.dialogStack.slice().forEach((d) => window.__store("dialog").closeDialog({ key: d.key }));
      window.__store("workspace").focusMode = true;
    });
    const bounds = await page.evaluate(graphBounds);
    const margin = 40;
    const fit = (length, low, high) => Math.round(Math.min(high, Math.max(low, length + 2 * margin)));
    await page.setViewportSize({ width: fit(bounds[2], 400, 3200), height: fit(bounds[3], 300, 2400) });
    await page.waitForTimeout(500);
    const scale = await page.evaluate(([b, m]) => window.showBounds(b, m), [bounds, margin]);
    await page.waitForTimeout(800);
    const overlapping = await page.evaluate(overlaps);
    await page.screenshot({ path: file, style: ".no-drag.fixed, .p-buttongroup.absolute { display: none !important }" });
    await page.evaluate(() => (window.__store("workspace").focusMode = false));
    await page.setViewportSize(before);
    return { file: resolve(file), scale, bounds, overlaps: overlapping };
  },
  async page(page, file) {
    await page.screenshot({ path: file });
    return { file: resolve(file) };
  },
  reload: (page) => page.reload().then(() => ready(page)),
  click: (page, selector) => page.click(selector, { timeout: 10000 }).then(() => settle(page)),
  eval: async (page, code) => ({ value: await page.evaluate(`(async () => (${code}))()`) }),
  wait: (page, code) => page.waitForFunction(code, null, { timeout: 30000 }).then(() => undefined),
};

async function ready(page) {
  await page.waitForFunction(() => window.app?.extensionManager && window.app.rootGraph, null, { timeout: 60000 });
  await page.waitForFunction(() => !window.__store("workspace").spinner, null, { timeout: 60000 });
  await page.waitForTimeout(500);
}

async function open(browser) {
  const [width, height] = options.size.split("x").map(Number);
  const settings = {
    "Comfy.VueNodes.Enabled": options.vue,
    "Comfy.Locale": options.locale,
    "Comfy.TutorialCompleted": true, // else the templates open over the canvas
    "Comfy.Minimap.Visible": false,
    "Comfy.Workflow.Persist": false, // else the page opens with the workflow of the last visit
  };
  const answer = await fetch(`${options.url}/api/settings`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(settings),
  });
  if (!answer.ok) throw new Error(`POST /api/settings: ${answer.status}`);
  const context = await browser.newContext({ viewport: { width, height }, locale: options.locale });
  const page = await context.newPage();
  page.on("pageerror", (error) => report("page error", error.stack || error.message));
  page.on("console", (message) => {
    const type = message.type();
    if (type === "error" || type === "warning") report(`console ${type}`, message.text(), message.location().url);
  });
  page.on("dialog", (dialog) => {
    if (dialog.type() === "beforeunload") return dialog.accept(); // reload leaves an unsaved workflow behind
    report("browser dialog", dialog.message());
    dialog.dismiss().catch(() => {});
  });
  await page.exposeFunction("reportToast", (kind, text) => report(`toast ${kind}`, text));
  await page.addInitScript(`${STORES}\nwindow.showBounds = ${showBounds};\n(${watchToasts})();`);
  await page.goto(options.url);
  await ready(page);
  return page;
}

async function main() {
  const wanted = positionals.map((word) => {
    const [, name, value = ""] = /^([a-z]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (!Object.hasOwn(STEPS, name ?? "")) throw new Error(`No such step: ${word}`);
    return [name, value];
  });
  if (!options.url) throw new Error("--url is missing");
  const modules = process.env.CANVAS_NODE_MODULES;
  if (!modules) throw new Error("CANVAS_NODE_MODULES must name a node_modules folder that holds playwright-core");
  const { chromium } = createRequire(resolve(modules) + "/")("playwright-core");
  // A fresh profile of its own comes with every launch.
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
  try {
    const page = await open(browser);
    const ready = seconds();
    let known = [];
    for (const [name, value] of wanted) {
      step++;
      const since = Date.now();
      const result = { step, do: name, ...(value && { with: value }) };
      try {
        Object.assign(result, await STEPS[name](page, value));
      } catch (error) {
        result.error = error.message;
      }
      const now = await page.evaluate(complaints);
      for (const [kind, text] of now) if (!known.includes(kind + text)) report(kind, text);
      known = now.map((parts) => parts.join(""));
      steps.push({ ...result, seconds: seconds(since) });
    }
    return { ok: steps.every((s) => !s.error), ready, seconds: seconds(), problems, steps };
  } finally {
    await browser.close();
  }
}

let result;
try {
  result = await main();
} catch (error) {
  result = { ok: false, error: error.message, seconds: seconds(), problems, steps };
}
process.stdout.write(JSON.stringify(result, null, 1) + "\n");
process.exitCode = result.ok ? 0 : 1;
