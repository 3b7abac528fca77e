import {
  checkFileLength,
  type Header,
  parseHeader,
  parseHeaderLength,
  readTensor,
  readTensors,
  type Weights,
  type WeightTensor,
  weightsError,
} from "./safetensors.ts";

/** Collects a file out of pieces of any size, and refuses it as soon as that is possible. */
export class Arrival {
  readonly #where: string;
  readonly #announced: number | undefined;
  readonly #onTensor: ((tensor: WeightTensor) => void) | undefined;
  #bytes = new Uint8Array(0);
  #loaded = 0;
  #headerEnd: number | undefined;
  #header: Header | undefined;
  #delivered = 0;

  /**
   * @param announced bytes of the whole file, where a server says so
   * @param onTensor called with each tensor once all of its bytes are there, in the order in which they lie in the file
   */
  constructor(where: string, announced: number | undefined, onTensor?: (tensor: WeightTensor) => void) {
    this.#where = where;
    this.#announced = announced;
    this.#onTensor = onTensor;
  }

  get loaded(): number {
    return this.#loaded;
  }

  /** Bytes of the whole file, as soon as that is known. */
  get total(): number | undefined {
    return this.#header?.fileBytes ?? this.#announced;
  }

  push(piece: Uint8Array): void {
    const loaded = this.#loaded + piece.length;
    if (this.#header) checkNothingMore(this.#where, this.#header, loaded);
    this.#makeRoom(loaded);
    this.#bytes.set(piece, this.#loaded);
    this.#loaded = loaded;
    if (!this.#header) this.#readHeader();
    if (this.#header && this.#onTensor) this.#deliver(this.#header, this.#onTensor);
  }

  #readHeader(): void {
    if (this.#headerEnd === undefined && this.#loaded >= 8) {
      this.#headerEnd = 8 + parseHeaderLength(this.#where, this.#bytes);
      if (this.#announced !== undefined && this.#headerEnd > this.#announced) {
        throw weightsError(
          this.#where,
          "the header",
          "lie within the file",
          `a header of ${this.#headerEnd - 8} bytes in a file of ${this.#announced} (its Content-Length)`,
          "it is truncated, or no safetensors file; export or upload it again",
        );
      }
    }
    if (this.#headerEnd === undefined || this.#loaded < this.#headerEnd) return;
    this.#header = parseHeader(this.#where, this.#bytes.subarray(8, this.#headerEnd));
    if (this.#announced !== undefined) checkFileLength(this.#where, this.#header, this.#announced, "the file, by its Content-Length,");
    checkNothingMore(this.#where, this.#header, this.#loaded);
  }

  #deliver(header: Header, onTensor: (tensor: WeightTensor) => void): void {
    for (;;) {
      const entry = header.stored[this.#delivered];
      if (!entry || header.dataStart + entry.end > this.#loaded) return;
      this.#delivered++;
      onTensor(readTensor(header, this.#bytes, entry));
    }
  }

  /** Memory follows what has arrived, not what is promised, until header and Content-Length agree on the whole length. */
  #makeRoom(needed: number): void {
    if (needed <= this.#bytes.length) return;
    const doubled = Math.max(needed, 2 * this.#bytes.length);
    const whole = this.#header?.fileBytes;
    const room = whole === undefined ? Math.max(doubled, 1 << 16) : this.#announced === undefined ? Math.min(whole, doubled) : whole;
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = new Uint8Array(room);
    } catch (error) {
      throw weightsError(this.#where, "the file", "fit into memory in one piece", `${room} bytes`, "split it, or use a smaller dtype", {
        cause: error,
      });
    }
    bytes.set(this.#bytes.subarray(0, this.#loaded));
    this.#bytes = bytes;
  }

  /** Where the body ended too early: the bytes that there should be at least, and what they are. */
  get missing(): { readonly bytes: number; readonly rule: string } | undefined {
    const bytes = this.#header?.fileBytes ?? this.#headerEnd ?? 8;
    if (this.#header && this.#loaded >= bytes) return undefined;
    return { bytes, rule: this.#header ? `have the ${bytes} bytes that its header promises` : `have at least ${bytes} bytes, its header` };
  }

  /** The file, all of which has arrived. */
  finish(): { weights: Weights; file: Uint8Array<ArrayBuffer> } {
    const header = this.#header!;
    const file = this.#bytes.length === header.fileBytes ? this.#bytes : this.#bytes.slice(0, header.fileBytes);
    return { weights: readTensors(this.#where, header, file), file };
  }
}

function checkNothingMore(where: string, header: Header, loaded: number): void {
  if (loaded > header.fileBytes) checkFileLength(where, header, loaded, "the body");
}
