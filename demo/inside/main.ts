import { element, make } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { grouped } from "../shared/format.ts";
import { showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import { FIRST_ORBIT, moved, type Orbit } from "./camera.ts";
import { type Colour, percent, type Theme, visible } from "./picture.ts";
import type { Events, InsideCalls, ModelReport } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  text: element("text", HTMLTextAreaElement),
  textProblem: element("text-problem"),
  follow: element("follow", HTMLButtonElement),
  layer: element("layer", HTMLSelectElement),
  order: element("order", HTMLSelectElement),
  kind: element("kind", HTMLSelectElement),
  stretched: element("stretched", HTMLInputElement),
  adapter: element("adapter"),
  shares: element("shares"),
  view: element("view"),
  token: element("token", HTMLInputElement),
  shown: element("shown"),
};
const progress = new ProgressLine(element("status"));
const palette = make("canvas").getContext("2d") as CanvasRenderingContext2D;

/** Radians a pixel of dragging, and a press of an arrow key. */
const TURN = { pixel: 0.008, key: 0.12 };
const ZOOM = { wheel: 0.0015, key: 1.12 };
/** A press that moves less is a click. */
const CLICK = 5;
/** Radians a millisecond, until the visitor takes over. */
const DRIFT = 0.00012;

/** A GPU that is lost before the first picture is seen, or so soon after it, in milliseconds, was lost for it. */
const FIRST_MOMENTS = 3000;

/** Some browsers lose the GPU when it draws into a canvas that they cannot show: then pictures go through main memory, as they do for adapters on the processor. */
let canvasWorks = true;
const forceCanvas = new URLSearchParams(location.search).get("debug") === "canvas";
let asked = false;
let shownSince: number | undefined;
/** Of the pictures, those that are still to come. */
let due = 0;

let model: ModelReport | undefined;
let busy = false;
/** What has been followed: the characters of the path. */
let followed: string[] = [];
let orbit: Orbit = FIRST_ORBIT;
let looking = false;
let drifting = !matchMedia("(prefers-reduced-motion: reduce)").matches;

const engine = new Engine<InsideCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    working({ step, fraction }) {
      progress.show(step, fraction);
    },
  },
  stopped(because) {
    const atFirst = asked && (shownSince === undefined || performance.now() - shownSince < FIRST_MOMENTS);
    if (because === "lost" && atFirst) canvasWorks = false;
    model = undefined;
    busy = false;
    update();
    progress.show(because === "lost" ? "Interrupted." : "Not available.");
  },
  async prepare(adapter, again) {
    page.adapter.textContent = adapterName(adapter);
    // A canvas can be given to a worker once.
    const canvas = make("canvas");
    page.view.replaceChildren(canvas);
    const offscreen = canvas.transferControlToOffscreen();
    asked = false;
    shownSince = undefined;
    await engine.callWith([offscreen], "attach", offscreen, !canvasWorks || (adapter.software && !forceCanvas));
    const loaded = await engine.call("load", new URL("checkpoints/hlm_shakespeare.safetensors", document.baseURI).href);
    page.layer.replaceChildren(
      ...Array.from({ length: loaded.layers }, (_, i) => new Option(String(i + 1), String(i), false, i === Number(page.layer.value || 0))),
    );
    model = loaded;
    if (checkText()) await follow();
    else {
      progress.show("Ready for another text.");
      update();
    }
    return again ? "The path was computed anew." : undefined;
  },
});

page.text.addEventListener("input", checkText);
page.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) page.form.requestSubmit();
});
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!model || busy) return;
  if (checkText()) void shield(follow);
  else page.text.focus();
});
for (const control of [page.layer, page.order, page.kind, page.stretched])
  control.addEventListener("change", () => void shield(() => expecting(project)));
page.token.addEventListener("input", look);
new ResizeObserver(look).observe(page.view);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);
listenToPointers();
page.view.addEventListener("keydown", onKey);

update();
drift();
void engine.start();

async function follow(): Promise<void> {
  busy = true;
  update();
  const text = page.text.value;
  try {
    await engine.call("read", text);
    followed = [...text];
    page.token.max = String(followed.length);
    page.token.value = String(followed.length);
    await expecting(project);
  } finally {
    busy = false;
    update();
  }
}

/** Projects what is selected, and shows it. */
async function project(): Promise<void> {
  const order = page.order.value === "" ? undefined : Number(page.order.value);
  const kind = page.kind.value === "own" ? "own" : "mean";
  const shares = await engine.call("select", { layer: Number(page.layer.value), kind, order, stretched: page.stretched.checked });
  const all = percent(shares.reduce((a, b) => a + b, 0));
  page.shares.textContent = `${shares.map(percent).join(", ")}: ${all} together`;
  progress.show(`Ready. ${grouped(followed.length)} character${followed.length === 1 ? "" : "s"}; the three axes hold ${all} of their spread.`);
  look();
}

async function shield(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof EngineLost)) showBanner("wrong", `This did not work: ${(error as Error).message}`, { label: "Close", press: () => {} });
  }
}

/** Whether the picture is the one that was asked for last is to be told from outside: work that ends in another one is on its way. */
async function expecting(work: () => Promise<void>): Promise<void> {
  const count = (change: number) => {
    due += change;
    page.view.dataset["picture"] = due > 0 ? "due" : "shown";
  };
  count(1);
  try {
    await work();
  } finally {
    count(-1);
  }
}

/** Tells the worker what to draw, once a frame. */
function look(): void {
  showText();
  if (looking) return;
  looking = true;
  // After a loss there is another canvas, and this is called again.
  expecting(async () => {
    await new Promise(requestAnimationFrame);
    looking = false;
    if (!model || followed.length === 0) return;
    const pixel = devicePixelRatio;
    const { clientWidth, clientHeight } = page.view;
    const size = { width: Math.max(1, Math.round(clientWidth * pixel)), height: Math.max(1, Math.round(clientHeight * pixel)) };
    asked = true;
    await engine.call("look", { orbit, theme: readTheme(), chosen: Number(page.token.value) - 1, pixel, ...size });
    shownSince ??= performance.now();
  }).catch(() => {});
}

/** The text, with the chosen character marked. */
function showText(): void {
  const chosen = Number(page.token.value) - 1;
  const character = followed[chosen];
  if (character === undefined) return;
  const mark = make("mark", { textContent: character === "\n" ? "↵\n" : character });
  page.shown.replaceChildren(
    followed.slice(0, chosen).join(""),
    mark,
    make("span", { className: "later", textContent: followed.slice(chosen + 1).join("") }),
  );
  page.token.setAttribute("aria-valuetext", `${chosen + 1} of ${followed.length}: ${visible(character)}`);
}

function turnBy(yaw: number, pitch: number, zoom: number): void {
  drifting = false;
  orbit = moved(orbit, yaw, pitch, zoom);
  look();
}

/** Turns slowly, so that one sees the depth, until the visitor turns it. */
function drift(): void {
  let last = performance.now();
  const step = (now: number) => {
    if (!drifting) return;
    const passed = Math.min(100, now - last);
    last = now;
    if (!document.hidden && followed.length > 0) {
      orbit = moved(orbit, DRIFT * passed, 0, 1);
      look();
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function listenToPointers(): void {
  const down = new Map<number, { x: number; y: number }>();
  let travelled = 0;
  const spread = () => {
    const [a, b] = [...down.values()];
    return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  };
  const { view } = page;
  view.addEventListener("pointerdown", (event) => {
    view.setPointerCapture(event.pointerId);
    if (down.size === 0) travelled = 0;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  view.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const apart = spread();
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    travelled += Math.hypot(dx, dy);
    if (down.size === 1) turnBy(-dx * TURN.pixel, dy * TURN.pixel, 1);
    else if (apart > 0 && spread() > 0) turnBy(0, 0, apart / spread());
  });
  const up = (event: PointerEvent) => {
    if (down.delete(event.pointerId) && down.size === 0 && travelled < CLICK && event.type === "pointerup")
      void shield(() => expecting(() => pick(event)));
  };
  view.addEventListener("pointerup", up);
  view.addEventListener("pointercancel", up);
  view.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      turnBy(0, 0, Math.exp(event.deltaY * ZOOM.wheel));
    },
    { passive: false },
  );
}

async function pick(event: PointerEvent): Promise<void> {
  const { left, top, width, height } = page.view.getBoundingClientRect();
  const found = await engine.call("pick", (event.clientX - left) / width, (event.clientY - top) / height);
  if (found < 0) return;
  page.token.value = String(found + 1);
  look();
}

function onKey(event: KeyboardEvent): void {
  const moves: Readonly<Record<string, () => void>> = {
    ArrowLeft: () => turnBy(-TURN.key, 0, 1),
    ArrowRight: () => turnBy(TURN.key, 0, 1),
    ArrowUp: () => turnBy(0, TURN.key, 1),
    ArrowDown: () => turnBy(0, -TURN.key, 1),
    "+": () => turnBy(0, 0, 1 / ZOOM.key),
    "=": () => turnBy(0, 0, 1 / ZOOM.key),
    "-": () => turnBy(0, 0, ZOOM.key),
    Home() {
      orbit = FIRST_ORBIT;
      turnBy(0, 0, 1);
    },
  };
  const move = moves[event.key];
  if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move();
}

function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): Colour => {
    // However a colour is written, a canvas gives it back as #rrggbb.
    palette.fillStyle = style.getPropertyValue(name);
    const channel = (i: number) => Number.parseInt(String(palette.fillStyle).slice(1 + 2 * i, 3 + 2 * i), 16) / 255;
    return [channel(0), channel(1), channel(2)];
  };
  return {
    ground: colour("--raised"),
    ink: colour("--ink"),
    quiet: colour("--quiet"),
    early: colour("--line-a"),
    late: colour("--line-c"),
    mark: colour("--line-b"),
  };
}

/** Says which characters the model has never seen. */
function checkText(): boolean {
  if (!model) return true;
  const known = new Set(model.characters);
  const unknown = [...new Set(page.text.value)].filter((character) => !known.has(character));
  page.text.setAttribute("aria-invalid", String(unknown.length > 0));
  const message = unknown.length ? `The model does not know ${unknown.map((character) => `“${character}”`).join(", ")}.` : "";
  if (page.textProblem.textContent !== message) page.textProblem.textContent = message;
  return unknown.length === 0 && page.text.value !== "";
}

function update(): void {
  const ready = model !== undefined && !busy;
  page.follow.disabled = !ready;
  for (const control of [page.layer, page.order, page.kind, page.stretched, page.token]) control.disabled = !ready || followed.length === 0;
}
