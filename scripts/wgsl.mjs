/**
 * A shader without what only people read: comments, indentation, blanks around signs. The lines stay, so that a compiler's line numbers are those of the file.
 * @param {string} source
 */
export function bareWgsl(source) {
  return source
    .split("\n")
    .map((line) =>
      line
        .replace(/\/\/.*/, "")
        .trim()
        // Two signs that stand apart stay apart: `a - -b` is not `a--b`.
        .replace(/(?<=[\w)\]}>,;:({[]) *([-+*/%<>=!&|^]+|[,;:(){}[\]]) *(?=[\w()[\]{}@,;]|$)/g, "$1"),
    )
    .join("\n");
}
