/** The element of the page with this id. @throws Error where the page has none of this kind */
export function element<T extends HTMLElement = HTMLElement>(id: string, kind?: new () => T): T {
  const found = document.getElementById(id);
  if (!found || (kind && !(found instanceof kind))) throw new Error(`the page has no ${id} of the expected kind`);
  return found as T;
}

/** A new element with properties and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Says something in a live region, once: the same words again are not read out again. */
export function say(region: HTMLElement, message: string): void {
  if (region.textContent !== message) region.textContent = message;
}

/** Enables and disables buttons without leaving the keyboard on a disabled one: the focus goes to the first that can take it. */
export function allow(buttons: ReadonlyMap<HTMLButtonElement, boolean>): void {
  for (const [button, allowed] of buttons) if (allowed) button.disabled = false;
  const focused = [...buttons].find(([button, allowed]) => !allowed && button === document.activeElement);
  if (focused) [...buttons].find(([button, allowed]) => allowed && button.offsetParent)?.[0].focus();
  for (const [button, allowed] of buttons) if (!allowed) button.disabled = true;
}

/** Offers bytes or text as a file. */
export function download(name: string, contents: BlobPart, type: string): void {
  const url = URL.createObjectURL(new Blob([contents], { type }));
  make("a", { href: url, download: name }).click();
  // The browser takes its own hold of the file at the click, though not in the same turn everywhere.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
