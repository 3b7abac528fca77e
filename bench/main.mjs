// `npm run bench`: see options.mjs for what it takes and docs/benchmarks.md for what it does.
import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import { dirname, join } from "node:path";
import { root } from "../scripts/setup.mjs";
import { bundle, checkOut, installPeers, revision, weigh } from "./build.mjs";
import { allGroups, isChosen } from "./cases.mjs";
import { CONTENDERS } from "./contenders.mjs";
import { browserHost, nodeHost } from "./hosts.mjs";
import { readOptions, usage } from "./options.mjs";
import { htmlReport } from "./report.mjs";
import { addCeilings, againstBase, ceilingsOf, targetsOf } from "./results.mjs";
import { Runner } from "./runner.mjs";
import { align, groupTable, rivalsTable, short, targetTable, withPrefix } from "./table.mjs";

/** @typedef {ReturnType<typeof documentOf>} BenchDocument */

const options = parse();
const groups = allGroups(options)
  .filter(({ id }) => id === "ceilings" || isChosen(id, options.filter))
  .map((group) => ({ ...group, entries: group.entries.filter(({ contender }) => options.contenders.includes(contender)).flatMap(withBase) }))
  .filter(({ entries }) => entries.length > 0);
if (options.list) {
  console.log(align(groups.map(({ id, title }) => [id, title]).map(([id = "", title = ""]) => [id, ` ${title}`])));
  process.exit(0);
}

const started = new Date();
const names = Object.keys(CONTENDERS).filter((name) => groups.some(({ entries }) => entries.some(({ contender }) => contender === name)));
if (names.some((name) => CONTENDERS[name]?.npm)) installPeers();
const base = options.base === undefined ? undefined : checkOut(options.base);
const host = options.node ? await nodeHost() : await browserHost();
process.once("SIGINT", async () => {
  await finish();
  process.exit(130);
});

try {
  const target = options.node ? "node" : "browser";
  progress("bundling");
  const head = await bundle({ names, target, source: root, label: "head" });
  const old = base && (await bundle({ names: ["homm"], target, source: base.folder, label: "base" }));
  const folders = { ...Object.fromEntries(names.map((name) => [name, head])), ...(old && { "homm@base": old }) };
  const runner = new Runner(host, folders, options, progress);
  const machine = await describeMachine(head);
  console.log(machineLines(machine).join("\n"));

  /** @type {import("./results.mjs").GroupResult[]} */
  const results = [];
  for (const group of groups) {
    const result = await runner.run(group);
    results.push(result);
    addCeilings(results);
    console.log(`\n${groupTable(result)}`);
  }

  for (const series of ["rivals", "causal rivals"]) {
    const rivals = results.filter((group) => group.series === series);
    if (rivals.length > 1) console.log(`\n${rivalsTable(rivals)}`);
  }

  const document = documentOf(machine, results, runner, head);
  if (document.targets.length > 0) console.log(`\n${targetTable(document.targets)}`);
  if (document.againstBase.length > 0) {
    const rows = document.againstBase.map(({ name, median, q1, q3 }) => [name, `${short(median)}×`, `(${short(q1)} to ${short(q3)})`]);
    console.log(`\n${align([[`this version / ${options.base}`, "time", "quartiles"], ...rows])}`);
  }
  const weights = document.contenders.flatMap(({ title, weight }) =>
    weight ? [[title, withPrefix(weight.gzip, "B"), withPrefix(weight.bytes, "B")]] : [],
  );
  if (weights.length > 0) console.log(`\n${align([["page weight", "gzip", "plain"], ...weights])}`);
  save(document);
} finally {
  await finish();
}

function parse() {
  try {
    const read = readOptions(process.argv.slice(2));
    if (!read.help) return read;
    console.log(usage);
    process.exit(0);
  } catch (error) {
    console.error(`${/** @type {Error} */ (error).message}\n${usage}`);
    process.exit(2);
  }
}

/** The other version is one more entry beside each of ours. @param {import("./cases.mjs").Entry} entry @returns {import("./cases.mjs").Entry[]} */
function withBase(entry) {
  if (options.base === undefined || entry.contender !== "homm") return [entry];
  return [entry, { ...entry, name: `${entry.name}@base`, contender: "homm@base", role: "baseline" }];
}

/** @param {string} folder */
async function describeMachine(folder) {
  const client = await host.connect(folder, names.includes("plain") ? "plain" : (names[0] ?? ""));
  const adapter = await client.driver.machine();
  await client.close();
  const cpus = os.cpus();
  return {
    host: host.name,
    hostVersion: host.version,
    adapter,
    cpu: cpus[0]?.model.trim() ?? "",
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    /** Of the last minute, before: other work on the machine shows here. */
    load: os.loadavg()[0] ?? 0,
  };
}

/** @param {Awaited<ReturnType<typeof describeMachine>>} machine */
function machineLines({ host, hostVersion, adapter, cpu, cores, system, load }) {
  const { vendor, architecture, description, software, features, subgroups } = adapter;
  const name = [vendor, architecture, description].filter(Boolean).join(", ");
  return [
    `${host} ${hostVersion} on ${name} (${software ? "software" : "GPU"}; subgroups ${subgroups.join(" to ")}); ${cores} cores, ${cpu}; ${system}`,
    `features: ${features.join(" ")}`,
    `${options.rounds} interleaved rounds, batches of about ${options.batchMs} ms, medians; load ${load.toFixed(1)}${load > 0.5 * cores ? ": OTHER WORK IS RUNNING, only ratios mean something" : ""}`,
  ];
}

/**
 * @param {Awaited<ReturnType<typeof describeMachine>>} machine @param {import("./results.mjs").GroupResult[]} results
 * @param {Runner} runner @param {string} folder
 */
function documentOf(machine, results, runner, folder) {
  return {
    schema: 1,
    date: started.toISOString(),
    seconds: Math.round((Date.now() - started.getTime()) / 1000),
    ...revision(),
    base: base && { ref: options.base, commit: base.commit },
    options: { filter: options.filter, rounds: options.rounds, quick: options.quick, budgetMs: options.budgetMs, batchMs: options.batchMs },
    machine,
    contenders: names.map((name) => {
      const files = [...(runner.files.get(name) ?? [])].filter((file) => !/^chunks\/(harness|rolldown-runtime)/.test(file));
      return {
        name,
        title: CONTENDERS[name]?.title ?? name,
        version: runner.versions.get(name) ?? "",
        weight: files.length > 0 ? weigh(folder, files) : undefined,
      };
    }),
    ceilings: ceilingsOf(results),
    targets: targetsOf(results, machine.adapter),
    againstBase: againstBase(results),
    groups: results,
  };
}

/** @param {BenchDocument} document */
function save(document) {
  const json = `${JSON.stringify(document, null, 1)}\n`;
  const { vendor, architecture, description } = document.machine.adapter;
  const slug = [vendor, architecture || description, document.machine.host]
    .join(" ")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
  const saved = join(root, "bench/results", slug, `${document.date.slice(0, 10)}-${document.commit.slice(0, 8)}.json`);
  const files = [...(options.json ? [options.json] : []), ...(options.save ? [saved] : [])];
  for (const file of files) write(file, json);
  if (options.html) write(options.html, htmlReport(document));
}

/** @param {string} file @param {string} content */
function write(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  console.log(`wrote ${file}`);
}

/** A line that is written over, where somebody is looking. @param {string} text */
function progress(text) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

async function finish() {
  base?.remove();
  await host.close().catch(() => {});
}
