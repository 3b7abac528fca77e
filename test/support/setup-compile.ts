import { installDawn } from "./dawn.ts";

// The null backend validates and compiles every shader and runs none: no GPU, no Vulkan, no browser.
installDawn(["backend=null"]);
