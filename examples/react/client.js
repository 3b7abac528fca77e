import { createElement, StrictMode } from "react";
import { hydrateRoot } from "react-dom/client";
import { App } from "./app.js";

const root = document.querySelector("#app");
if (root) hydrateRoot(root, createElement(StrictMode, null, createElement(App)));
