/** What every page has around its <main>, put there when the site is served or built: head, navigation, notices, footer. */
import { pages } from "./pages.ts";

const repository = "https://github.com/homm-webgpu/homm-webgpu/blob/main";

const icon =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 3h5v5H2zm7 5h5v5H9z' fill='%23246a73'/%3E%3C/svg%3E";

const head = `
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="light dark" />
    <link rel="icon" href="${icon}" />
    <link rel="stylesheet" href="./shared/style.css" />`;

const notices = `
      <noscript><p class="notice">This page needs JavaScript.</p></noscript>
      <section id="no-webgpu" class="notice" role="alert" hidden>
        <h2>This page needs WebGPU</h2>
        <p id="no-webgpu-reason"></p>
        <ul>
          <li>Use a recent Chrome or Edge, Safari 26 or newer, or Firefox 141 or newer on Windows, and update the graphics driver.</li>
          <li>Open the page over https or on localhost; browsers hide WebGPU elsewhere.</li>
          <li>
            Check that hardware acceleration is on in the browser's settings. On Linux, Chrome may also need the switch
            <code>chrome://flags/#enable-unsafe-webgpu</code>.
          </li>
          <li>
            Without any of these, <code class="command">npm start -- --once</code> in a clone of the repository writes text in a terminal, on the CPU if it
            has to.
          </li>
        </ul>
        <p><button id="no-webgpu-retry" type="button">Look again</button></p>
      </section>
      <div id="banner" class="notice banner" role="alert" hidden>
        <p id="banner-text"></p>
        <button id="banner-button" type="button" hidden></button>
      </div>`;

const footer = `
    <footer>
      <p>Computed on this device: nothing that you type leaves it.</p>
      <ul>
        <li><a href="${repository}/README.md">README</a></li>
        <li><a href="${repository}/docs/design.md">Design</a></li>
        <li><a href="${repository}/docs/kernels.md">Kernels</a></li>
        <li><a href="${repository}/docs/streaming.md">Streams</a></li>
        <li><a href="${repository}/docs/numerics.md">Numerics</a></li>
      </ul>
    </footer>`;

/** Completes the HTML of a page; throws where it has no line in pages.ts, no <main> or no <head>. */
export function frame(html: string, file: string): string {
  if (!pages.some((page) => page.file === file)) throw new Error(`demo/${file} must have a line in demo/shared/pages.ts`);
  const links = pages.map(({ file: target, name }) => `<li><a href="./${target}"${target === file ? ' aria-current="page"' : ""}>${name}</a></li>`);
  const header = `
    <a class="skip" href="#main">Skip to the content</a>
    <header>
      <a class="brand" href="./index.html"><span class="mark" aria-hidden="true"></span>homm-webgpu</a>
      <nav aria-label="Pages">
        <ul>
          ${links.join("\n          ")}
        </ul>
      </nav>
    </header>
`;
  const cards = pages.slice(1).map(
    ({ file: target, name, summary }) => `
          <li>
            <a href="./${target}">${name}</a>
            <p>${summary}</p>
          </li>`,
  );
  return [
    ["<head>", `<head>${head}`],
    ["<main>", `${header}\n    <main id="main" tabindex="-1">${notices}`],
    ["</main>", `</main>\n${footer}`],
    ...(html.includes("<!-- pages -->") ? [["<!-- pages -->", cards.join("")]] : []),
  ].reduce((text, [mark = "", replacement = ""]) => {
    if (!text.includes(mark)) throw new Error(`demo/${file} must have ${mark}`);
    return text.replace(mark, () => replacement);
  }, html);
}
