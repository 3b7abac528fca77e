import { installDawn } from "./dawn.ts";

// Without the toggle Dawn for Node rounds timestamps to 65.536 µs.
installDawn(["disable-dawn-features=timestamp_quantization"]);
