/** The layers without their backward passes, for pages that count bytes. */
export { HomLayer } from "./layers/hom.ts";
export { PomLayer } from "./layers/pom.ts";
