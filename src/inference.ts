/** The layer without its backward pass, for pages that count bytes. */
export { HomLayer } from "./layers/hom.ts";
