// Renders the page in plain Node, where there is no WebGPU and nobody asks for it; the browser takes over from there. `vite build react` comes first.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createElement, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { App } from "./app.js";

const dist = new URL("dist/", import.meta.url);

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  try {
    if (pathname === "/") {
      const page = await readFile(new URL("index.html", dist), "utf8");
      const markup = renderToString(createElement(StrictMode, null, createElement(App)));
      response.setHeader("content-type", "text/html").end(page.replace("<!--app-->", markup));
    } else {
      const file = await readFile(new URL(`.${pathname}`, dist));
      response.setHeader("content-type", "text/javascript").end(file);
    }
  } catch {
    response.writeHead(404).end();
  }
});
server.listen(Number(process.env["PORT"] ?? 8080), "127.0.0.1", () => {
  const address = server.address();
  console.log(`http://127.0.0.1:${address && typeof address === "object" ? address.port : ""}/`);
});
