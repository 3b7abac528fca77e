/** What a page and its worker say to each other. */

/** Functions that a worker offers, of arguments that can be cloned. */
// biome-ignore lint/suspicious/noExplicitAny: the arguments are each function's own
export type Calls = { readonly [name: string]: (...args: any[]) => unknown };

export interface CallMessage {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
}

export interface AdapterReport {
  readonly name: string;
  /** Computed on the CPU. */
  readonly software: boolean;
  readonly timestamps: boolean;
}

export type WorkerMessage =
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly name: string; readonly message: string }
  | { readonly kind: "event"; readonly name: string; readonly data: unknown }
  /** An error of the GPU that no call has caught. */
  | { readonly kind: "fault"; readonly message: string }
  | { readonly kind: "lost"; readonly message: string };

/** Calls that every worker answers. */
export const OPEN = "open";
export const LOSE = "lose";
