/** @param {import("./main.mjs").BenchDocument} document */
export function htmlReport(document) {
  return JSON.stringify(document);
}
