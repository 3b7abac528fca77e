/** PoM, the polynomial mixer. */
export type { PomAppendOptions, PomForwardOptions, PomQueryOptions, PomStateOptions, PomStepOptions } from "./layers/pom.ts";
export type { PomConfig, PomParams } from "./layers/pom_config.ts";
export type { Positions } from "./layers/pom_positions.ts";
export { PomState, type PomStateConfig } from "./layers/pom_state.ts";
export { PomLayer, type PomTrainingOptions } from "./layers/pom_trainable.ts";
