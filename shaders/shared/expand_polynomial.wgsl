// PoM's moments out of a tile of projections: m = start ⊙ Σ_j coeff_j a^j, a = act(z). See expand_products.wgsl for the functions.
// Needs polynomial.wgsl and the polynomial file of the tile.

const EXPANDED: u32 = 1u;

struct Expansion {
  start: Tile,
  m: Tile,
}

fn expansion_of(start: Tile) -> Expansion {
  return Expansion(start, start);
}

fn expand(e: Expansion, row: u32, last: u32, i: u32, channel: u32) -> Expansion {
  return Expansion(e.start, tile_multiply(e.start, polynomial(row, last, i * shape.expand4 + channel)));
}

fn expanded(e: Expansion, j: u32) -> Tile {
  return e.m;
}
