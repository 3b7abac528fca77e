/** Set by bench/build.mjs: the library does not say it. */
declare const __JAX_VERSION__: string;
