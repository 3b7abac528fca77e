const inNode = typeof process !== "undefined" && process.versions?.node !== undefined;

/** Reads a file of the repository, in Node from the disk, in a browser from the test server. `path` is relative to the repository's root. */
export async function loadFixture(path: string): Promise<ArrayBuffer> {
  if (inNode) {
    const { readFile } = await import("node:fs/promises");
    const bytes = await readFile(new URL(`../../${path}`, import.meta.url));
    return new Uint8Array(bytes).buffer;
  }
  const response = await fetch(`/${path}`);
  // The server answers an unknown path with its index page.
  if (!response.ok || response.headers.get("content-type")?.startsWith("text/html"))
    throw new Error(`loadFixture: no file ${path} (status ${response.status})`);
  return response.arrayBuffer();
}

export async function loadJson<T>(path: string): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await loadFixture(path))) as T;
}
