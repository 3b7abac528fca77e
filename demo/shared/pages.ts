/** The pages of the site, in the order of the navigation. A page is an HTML file in demo/ with a line here. */
export interface PageEntry {
  /** Relative to demo/. */
  readonly file: string;
  /** In the navigation. */
  readonly name: string;
  /** On the welcome page; the first page is the welcome page itself. */
  readonly summary: string;
}

export const pages: readonly PageEntry[] = [
  { file: "index.html", name: "Welcome", summary: "" },
  {
    file: "generate.html",
    name: "Generate",
    summary:
      "A small language model writes in the manner of Shakespeare. Pause it, let it go on in two ways at once, save what it remembers to a file.",
  },
  {
    file: "long.html",
    name: "Long context",
    summary: "A million tokens stream through a layer whose memory of them stays a few kilobytes, beside what attention would keep and compute.",
  },
  {
    file: "kernels.html",
    name: "Kernels",
    summary:
      "Times every kernel of a moment layer and of softmax attention on your own adapter, and finds out from how many tokens on which is faster.",
  },
  {
    file: "compare.html",
    name: "Compare",
    summary:
      "The moment layer, the polynomial mixer, softmax attention and three kinds of linear attention on more and more tokens: time and memory, at equal width or equal work.",
  },
  {
    file: "train.html",
    name: "Train",
    summary:
      "A small language model learns from a text of yours, in this tab: watch its loss fall and its samples improve, then take the weights along.",
  },
  {
    file: "inside.html",
    name: "Look inside",
    summary: "Follow a text, character by character, through the averages that the language model's layers keep of it, in three dimensions.",
  },
];
