/** Texts to try, made up here: small enough to be learnt in a minute or two. */

/** Numbers that are the same in every browser. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Lines such as 17+25=42. */
export function sums(lines = 6000): string {
  const next = generator(1);
  return Array.from({ length: lines }, () => {
    const [a, b] = [next(50), next(50)];
    return `${a}+${b}=${a + b}\n`;
  }).join("");
}

const NOUNS = ["cat", "dog", "bird", "horse", "fox", "mouse", "owl", "goat"];
const KINDS = ["small", "old", "quiet", "red", "hungry", "clever"];
const VERBS = ["sees", "follows", "likes", "hears", "greets", "fears"];
const PLACES = ["in the garden", "by the river", "under the tree", "on the hill", "near the house"];

/** Sentences of a grammar that one can see being learnt: first words, then who does what where. */
export function sentences(count = 4000): string {
  const next = generator(2);
  const of = (words: readonly string[]) => words[next(words.length)] ?? "";
  const someone = () => `the ${next(2) === 0 ? `${of(KINDS)} ` : ""}${of(NOUNS)}`;
  return Array.from({ length: count }, () => {
    const text = `${someone()} ${of(VERBS)} ${someone()}${next(2) === 0 ? ` ${of(PLACES)}` : ""}`;
    return `${text.charAt(0).toUpperCase()}${text.slice(1)}.${next(5) === 0 ? "\n" : " "}`;
  }).join("");
}
