import { describe, expect, it } from "vitest";
import { byteVocabulary, charVocabulary, charVocabularyOf, vocabularyOf } from "../../src/models/vocabulary.ts";
import { Random } from "../../src/train/random.ts";
import { warmupCosine } from "../../src/train/schedule.ts";
import { BatchSampler, evaluationBatches, splitTokens } from "../../src/train/text.ts";

const count = (n: number) => Int32Array.from({ length: n }, (_, i) => i);

describe("Random", () => {
  // Known answers of the authors' Random123 library.
  it.each([
    [0, 0, 0, 0xff1dae59, 0x6cd10df2],
    [0xffffffff, 0xffffffff, 0xffffffff, 0x2c3f628b, 0xab4fd7ad],
    [0x13198a2e, 0x85a308d3, 0x243f6a88, 0xdd7ce038, 0xf62a4c12],
  ])("gives Philox 2x32-10 for key %i, counter %i %i", (seed, stream, block, even, odd) => {
    const random = new Random(seed, stream, 2 * block);
    expect([random.uint32(), random.uint32()]).toEqual([even, odd]);
  });

  it("goes on from its state", () => {
    const random = new Random(7, 3);
    for (let i = 0; i < 5; i++) random.uint32();
    const { seed, stream, drawn } = random.state;
    const again = new Random(seed, stream, drawn);
    expect(Array.from({ length: 9 }, () => again.uniform())).toEqual(Array.from({ length: 9 }, () => random.uniform()));
  });

  it("has the moments of its distributions", () => {
    const random = new Random(1);
    const mean = (draw: () => number) => Array.from({ length: 40_000 }, draw).reduce((sum, x) => sum + x / 40_000, 0);
    // Five standard errors.
    expect(Math.abs(mean(() => random.uniform()) - 0.5)).toBeLessThan(5 * 0.0015);
    expect(Math.abs(mean(() => random.normal()))).toBeLessThan(5 * 0.005);
    expect(Math.abs(mean(() => random.normal() ** 2) - 1)).toBeLessThan(5 * 0.0071);
    const seen = new Set(Array.from({ length: 200 }, () => random.below(5)));
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4]);
  });
});

describe("vocabularies", () => {
  it("of characters: sorted by code point, half a pair never alone", () => {
    const vocabulary = charVocabularyOf("ba\n😀aé");
    expect(vocabulary.characters).toEqual(["\n", "a", "b", "é", "😀"]);
    expect([...vocabulary.encode("b😀é")]).toEqual([2, 4, 3]);
    expect(vocabulary.decode([4, 1])).toBe("😀a");
    expect(vocabulary.knows("abba")).toBe(true);
    expect(vocabulary.knows("abc")).toBe(false);
    expect(() => vocabulary.encode("a😀c")).toThrow(/character 2 of text must be in the vocabulary, got "c"/);
  });

  it("of bytes: any text", () => {
    const vocabulary = byteVocabulary();
    expect([...vocabulary.encode("é😀")]).toEqual([0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80]);
    expect(vocabulary.decode(vocabulary.encode("né 😀\n"))).toBe("né 😀\n");
    const decode = vocabulary.decoder();
    expect([...vocabulary.encode("é!")].map((id) => decode([id]))).toEqual(["", "é", "!"]);
    expect(() => vocabulary.decode([256])).toThrow(RangeError);
  });

  it("come back from a checkpoint's metadata", () => {
    for (const vocabulary of [charVocabularyOf("bytes"), byteVocabulary(), charVocabulary("zé😀")]) {
      const again = vocabularyOf({ metadata: { vocabulary: vocabulary.metadata } });
      expect(again.size).toBe(vocabulary.size);
      expect(again.metadata).toBe(vocabulary.metadata);
    }
    expect(() => vocabularyOf({ metadata: {} })).toThrow(/must have a vocabulary/);
    expect(() => vocabularyOf({ metadata: { vocabulary: "[1]" } })).toThrow(/must be a JSON string of characters/);
  });
});

describe("text data", () => {
  it("splits at nine tenths", () => {
    const { train, validation } = splitTokens(count(101));
    expect([train.length, validation.length, validation[0]]).toEqual([90, 11, 90]);
    expect(splitTokens(count(10), { validation: 0 }).validation).toHaveLength(0);
    expect(() => splitTokens(count(10), { validation: 1 })).toThrow(/validation must be a fraction from 0 to less than 1, got 1/);
  });

  it("draws rows of neighbours, from the first start to the last", () => {
    const sampler = new BatchSampler(count(12), { batch: 3, length: 8, seed: 1 });
    const starts = new Set<number>();
    for (let i = 0; i < 40; i++) {
      const batch = sampler.next();
      expect(batch).toHaveLength(27);
      for (let row = 0; row < 3; row++) {
        const own = [...batch.subarray(row * 9, row * 9 + 9)];
        starts.add(own[0]!);
        expect(own).toEqual(own.map((_, j) => own[0]! + j));
      }
    }
    expect([...starts].sort()).toEqual([0, 1, 2, 3]);
  });

  it("gives the same batches for a seed, others for another, and goes on from its state", () => {
    const make = (seed: number) => new BatchSampler(count(1000), { batch: 2, length: 5, seed });
    const sampler = make(3);
    const first = sampler.next();
    expect(make(3).next()).toEqual(first);
    expect(make(4).next()).not.toEqual(first);
    sampler.offsets(7);
    const again = new BatchSampler(count(1000), JSON.parse(JSON.stringify(sampler.state)));
    expect(again.next()).toEqual(sampler.next());
    expect(Math.max(...Array.from({ length: 100 }, () => [...again.offsets(2)]).flat())).toBe(2);
  });

  it("refuses a text that is too short", () => {
    expect(() => new BatchSampler(count(8), { batch: 1, length: 8 })).toThrow(/tokens must have at least length \+ 1 = 9 tokens, got 8/);
    expect(() => evaluationBatches(count(8), { batch: 1, length: 8 })).toThrow(RangeError);
  });

  it("evaluates every token but the first once", () => {
    const batches = evaluationBatches(count(4 * 6 * 3 + 1), { batch: 4, length: 3 });
    expect(batches).toHaveLength(6);
    const targets = batches.flatMap((batch) => [...batch.tokens].filter((_, i) => i % 4 > 0));
    expect(batches.map(({ batch }) => batch)).toEqual([4, 4, 4, 4, 4, 4]);
    expect(targets).toEqual([...count(73)].slice(1));
    expect(evaluationBatches(count(73), { batch: 4, length: 3, limit: 2 })).toHaveLength(2);
    expect(evaluationBatches(count(10), { batch: 64, length: 3 }).map(({ tokens, batch }) => [tokens.length, batch])).toEqual([[12, 3]]);
  });
});

describe("warmupCosine", () => {
  const rate = warmupCosine({ peak: 1e-3, floor: 1e-4, warmup: 100, steps: 2000 });
  it.each([
    [0, 1e-5],
    [99, 1e-3],
    [100, 1e-3],
    [1050, 5.5e-4],
    [2000, 1e-4],
    [5000, 1e-4],
  ])("step %i has %d", (step, expected) => {
    expect(rate(step)).toBeCloseTo(expected, 12);
  });
  it("needs no warm-up", () => {
    expect(warmupCosine({ peak: 2, steps: 10 })(0)).toBe(2);
    expect(() => warmupCosine({ peak: -1, steps: 10 })).toThrow(/peak must be a finite number >= 0, got -1/);
  });
});
