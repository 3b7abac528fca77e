import { describeAdapter, findDawnAdapter, noAdapterAdvice } from "../../scripts/adapter.mjs";

/** Runs once in the main process; the test workers are started afterwards and inherit the driver through the environment. */
export function setup(): void {
  const adapter = findDawnAdapter();
  if (!adapter) throw new Error(noAdapterAdvice);
  Object.assign(process.env, adapter.env);
  console.log(`Dawn adapter: ${describeAdapter(adapter)}`);
}
