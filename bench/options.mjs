import { parseArgs } from "node:util";
import { CONTENDERS } from "./contenders.mjs";

export const usage = `npm run bench -- [options]
  --filter WORDS      groups whose id has one of these words, comma-separated: moments, layer, A, C, causal, padding, lengths,
                      decode, attention, rivals, scaling, create; "ceilings" always run
  --contenders NAMES  of ${Object.keys(CONTENDERS).join(", ")}; default all
  --rounds N          interleaved rounds (default 7, with --quick 3)
  --quick             small shapes, short batches
  --budget SECONDS    time for one entry of a group; a slower one gets fewer rounds, or is skipped (default 10, with --quick 5)
  --node              Dawn in Node instead of headless Chromium
  --base REF          measures that commit of this repository in the same rounds
  --json FILE         the results as JSON
  --html FILE         the results as a page with plots
  --save              the JSON also in bench/results/<adapter>/
  --list              only prints the groups`;

/** @param {string[]} args */
export function readOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      filter: { type: "string" },
      contenders: { type: "string" },
      rounds: { type: "string" },
      budget: { type: "string" },
      base: { type: "string" },
      json: { type: "string" },
      html: { type: "string" },
      node: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      save: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const quick = values.quick === true;
  const contenders = values.contenders?.split(",") ?? Object.keys(CONTENDERS);
  const unknown = contenders.filter((name) => !(name in CONTENDERS));
  if (unknown.length > 0) throw new Error(`--contenders must be of ${Object.keys(CONTENDERS).join(", ")}, got ${unknown.join(", ")}`);
  return {
    ...values,
    quick,
    contenders,
    rounds: positive("--rounds", values.rounds, quick ? 3 : 7),
    budgetMs: 1000 * positive("--budget", values.budget, quick ? 5 : 10),
    /** A batch of calls is made about this long. */
    batchMs: quick ? 40 : 150,
  };
}

/** @param {string} name @param {string | undefined} text @param {number} otherwise */
function positive(name, text, otherwise) {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number from 1 on, got ${JSON.stringify(text)}`);
  return value;
}
