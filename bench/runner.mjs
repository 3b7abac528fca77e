// Measures one group: opens every entry, checks what it computes, then lets them take turns.
import { flopsOf } from "./cases.mjs";
import { DECODED, expected } from "./reference.mjs";
import { relativeError, summary } from "./statistics.mjs";

/** @typedef {import("./cases.mjs").Group} Group */
/** @typedef {import("./cases.mjs").Entry} Entry */
/** @typedef {import("./results.mjs").EntryResult} EntryResult */
/** @typedef {import("./results.mjs").GroupResult} GroupResult */
/** @typedef {import("./hosts.mjs").Client} Client */
/** @typedef {{ rounds: number, batchMs: number, budgetMs: number }} Limits */

/** Relative error (root mean square) beyond which a result is wrong. The layer's own bound is 2e-6; libraries with another erf or another order of sums stay below this. */
const GATE = 2e-5;
const MAX_CALLS = 200;
const KERNEL_ROUNDS = 5;

export class Runner {
  /** Where bundles are, by name. @type {Readonly<Record<string, string>>} */
  #folders;
  #host;
  #limits;
  #progress;
  /** What each contender's page has fetched. @type {Map<string, Set<string>>} */
  files = new Map();
  /** @type {Map<string, string>} */
  versions = new Map();
  /** Of entries of a series, the last time of a call and its work. @type {Map<string, { ms: number, flops: number }>} */
  #before = new Map();

  /** @param {import("./hosts.mjs").Host} host @param {Readonly<Record<string, string>>} folders @param {Limits} limits @param {(text: string) => void} progress */
  constructor(host, folders, limits, progress) {
    this.#host = host;
    this.#folders = folders;
    this.#limits = limits;
    this.#progress = progress;
  }

  /** @param {Group} group @returns {Promise<GroupResult>} */
  async run(group) {
    if (group.kind === "create") return this.#create(group);
    /** @type {{ entry: EntryResult, client: Client, rounds: number }[]} */
    const running = [];
    /** @type {EntryResult[]} */
    const entries = [];
    const reference = references();
    for (const described of group.entries) {
      /** @type {EntryResult} */
      const entry = { ...described, status: "ok" };
      entries.push(entry);
      const predicted = this.#predict(group, entry);
      if (predicted > this.#limits.budgetMs / 2) {
        fail(entry, "skipped", `a call would take about ${Math.round(predicted / 1000)} s; raise --budget`);
        continue;
      }
      this.#progress(`${group.id}: opening ${entry.name}`);
      const client = await this.#connect(entry);
      if (!client) continue;
      const rounds = await this.#open(entry, client, reference);
      if (entry.status === "ok") running.push({ entry, client, rounds });
      else await close(client);
      if (/** @type {EntryResult} */ (entry).status === "failed") await this.#recover(running, reference);
    }
    const most = Math.max(0, ...running.map(({ rounds }) => rounds));
    for (let round = 0; round < most; round++) {
      this.#progress(`${group.id}: round ${round + 1} of ${most}`);
      // Another one begins each time, so that none always follows the same.
      for (let i = 0; i < running.length; i++) {
        const turn = running[(i + round) % running.length];
        if (turn && round < turn.rounds) await this.#measure(turn.entry, turn.client);
      }
    }
    for (const { entry, client } of running) {
      if (entry.status === "ok") await this.#finish(group, entry, client);
      await close(client);
    }
    // One that failed in a round may have crashed the GPU process as well.
    if (running.some(({ entry }) => entry.status === "failed")) await this.#host.restart();
    this.#progress("");
    return { ...group, entries };
  }

  /**
   * What failed may have taken the GPU along, or keep it busy: a new browser, in which those that were open are opened again.
   * @param {{ entry: EntryResult, client: Client, rounds: number }[]} running @param {ReturnType<typeof references>} reference
   */
  async #recover(running, reference) {
    if (!(await this.#host.restart())) return;
    for (const turn of running) {
      const client = await this.#connect(turn.entry);
      if (!client) continue;
      turn.client = client;
      turn.rounds = await this.#open(turn.entry, client, reference);
    }
  }

  /** @param {Group} group @param {EntryResult} entry */
  #predict(group, entry) {
    const before = group.series === undefined ? undefined : this.#before.get(`${group.series}/${entry.name}`);
    return before ? (before.ms * (flopsOf(entry.task) ?? 0)) / before.flops : 0;
  }

  /** @param {EntryResult} entry @returns {Promise<Client | undefined>} */
  async #connect(entry) {
    const { contender } = entry;
    try {
      const folder = this.#folders[contender] ?? "";
      return await this.#host.connect(folder, contender.replace("@base", ""));
    } catch (error) {
      fail(entry, "failed", /** @type {Error} */ (error).message);
      return undefined;
    }
  }

  /** Opens, checks and times a first call; returns in how many rounds the entry takes part. @param {EntryResult} entry @param {Client} client @param {ReturnType<typeof references>} reference */
  async #open(entry, client, reference) {
    const { budgetMs, batchMs, rounds } = this.#limits;
    const { driver } = client;
    try {
      const { version, details, ...opened } = await within(budgetMs + 120_000, driver.open(entry.task));
      this.versions.set(entry.contender, version);
      this.files.set(entry.contender, new Set([...(this.files.get(entry.contender) ?? []), ...client.files]));
      Object.assign(entry, opened, { details });
      if (entry.task.kind === "decode") await driver.restart(DECODED);
      await check(entry, client, reference(entry.task));
      if (entry.status !== "ok") return 0;
      const ms = await within(2 * budgetMs, driver.run(1));
      if (ms > budgetMs) {
        fail(entry, "skipped", `a call takes ${Math.round(ms / 1000)} s; raise --budget`);
        return 0;
      }
      entry.calls = Math.min(MAX_CALLS, Math.max(1, Math.ceil(batchMs / ms)));
      entry.samples = [];
      return Math.max(1, Math.min(rounds, Math.floor(budgetMs / (ms * entry.calls))));
    } catch (error) {
      fail(entry, "failed", /** @type {Error} */ (error).message);
      return 0;
    }
  }

  /** @param {EntryResult} entry @param {Client} client */
  async #measure(entry, client) {
    if (entry.status !== "ok" || !entry.samples || !entry.calls) return;
    try {
      const ms = await within(3 * this.#limits.budgetMs, client.driver.run(entry.calls));
      entry.samples.push(ms / entry.calls);
    } catch (error) {
      fail(entry, "failed", /** @type {Error} */ (error).message);
    }
  }

  /** @param {Group} group @param {EntryResult} entry @param {Client} client */
  async #finish(group, entry, client) {
    const { driver } = client;
    entry.ms = summary(entry.samples ?? []);
    const flops = flopsOf(entry.task);
    if (group.series !== undefined && flops) this.#before.set(`${group.series}/${entry.name}`, { ms: entry.ms.median, flops });
    try {
      const calls = Math.min(entry.calls ?? 1, 10);
      const before = await driver.counts();
      await driver.run(calls);
      const after = await driver.counts();
      entry.perCall = { dispatches: (after.dispatches - before.dispatches) / calls, submits: (after.submits - before.submits) / calls };
      if (entry.contender === "homm" && group.kind !== "scaling") entry.kernels = await driver.kernels(Math.min(KERNEL_ROUNDS, this.#limits.rounds));
    } catch (error) {
      entry.reason = `counting failed: ${/** @type {Error} */ (error).message}`;
    }
  }

  /** A new browser or process for each sample: nothing has been compiled in it. @param {Group} group @returns {Promise<GroupResult>} */
  async #create(group) {
    /** @type {EntryResult[]} */
    const entries = group.entries.map((entry) => ({ ...entry, status: "ok", firstResultSamples: [] }));
    for (let round = 0; round < this.#limits.rounds; round++) {
      for (const entry of entries) {
        if (entry.status !== "ok") continue;
        this.#progress(`${group.id}: ${entry.name}, round ${round + 1} of ${this.#limits.rounds}`);
        await this.#host.restart();
        const client = await this.#connect(entry);
        if (!client) continue;
        try {
          const { startMs, firstResultMs } = await within(this.#limits.budgetMs + 120_000, client.driver.open(entry.task));
          entry.startMs = startMs;
          entry.firstResultSamples?.push(firstResultMs);
        } catch (error) {
          fail(entry, "failed", /** @type {Error} */ (error).message);
        }
        await close(client);
      }
    }
    this.#progress("");
    return { ...group, entries };
  }
}

/** References by task, computed once. */
function references() {
  /** @type {Map<string, ReturnType<typeof expected>>} */
  const known = new Map();
  return (/** @type {import("./types.ts").Task} */ task) => {
    const key = JSON.stringify({ ...task, kind: task.kind === "moments" ? "layer" : task.kind });
    if (!known.has(key)) known.set(key, expected(task));
    return known.get(key);
  };
}

/** The gate. @param {EntryResult} entry @param {Client} client @param {import("./reference.mjs").Expected | undefined} wanted */
async function check(entry, client, wanted) {
  const { rows = [0], width = 4, length, values } = wanted ?? {};
  const got = await client.driver.read(rows, width);
  const wrong = (/** @type {string} */ reason) =>
    fail(entry, "wrong", [reason, ...got.complaints.map((text) => `the device said: ${text}`)].join("; "));
  if (got.notFinite > 0) return wrong(`${got.notFinite} of ${got.length} numbers are not finite`);
  if (!values) return;
  if (length !== undefined && got.length !== length) return wrong(`the output has ${got.length} numbers instead of ${length}`);
  entry.error = relativeError(got.values, values);
  if (!(entry.error <= GATE)) wrong(`relative error ${entry.error.toExponential(1)} against float64, more than ${GATE.toExponential()}`);
}

/** @param {EntryResult} entry @param {EntryResult["status"]} status @param {string} reason */
function fail(entry, status, reason) {
  entry.status = status;
  entry.reason = reason.replace(/\s+/g, " ").slice(0, 500);
}

/** A page that hangs cannot be waited for, not even its closing. @param {Client} client */
async function close(client) {
  await within(10_000, client.close()).catch(() => {});
}

/** @template T @param {number} ms @param {Promise<T>} promise @returns {Promise<T>} */
async function within(ms, promise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${Math.round(ms / 1000)} s`)), ms);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([promise, late]));
  } finally {
    clearTimeout(timer);
  }
}
