/** PoM, the polynomial mixer. */
export {
  type PomAppendOptions,
  type PomForwardOptions,
  PomLayer,
  type PomQueryOptions,
  type PomStateOptions,
  type PomStepOptions,
} from "./layers/pom.ts";
export type { PomConfig, PomParams } from "./layers/pom_config.ts";
export type { Positions } from "./layers/pom_positions.ts";
export { PomState, type PomStateConfig } from "./layers/pom_state.ts";
