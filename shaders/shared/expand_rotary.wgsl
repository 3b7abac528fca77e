// PoM's moments turned by the token's position: chunks 2p and 2p + 1 are the two coordinates of planes, of which each has an angle of its own.
//
//   m_2p = start ⊙ (f_2p cos - f_(2p+1) sin),   m_(2p+1) = start ⊙ (f_(2p+1) cos + f_2p sin),   f = Σ_j coeff_j a^j
//
// See expand_products.wgsl for the functions. Needs polynomial.wgsl and the polynomial file of the tile.

const EXPANDED: u32 = 2u;

struct Expansion {
  start: Tile,
  first: Tile,
  second: Tile,
}

fn expansion_of(start: Tile) -> Expansion {
  return Expansion(start, start, start);
}

fn expand(e: Expansion, row: u32, last: u32, i: u32, channel: u32) -> Expansion {
  let col = i * shape.expand4 + channel;
  // One product in a loop compiles in half the time of two.
  var a = e.start;
  var b = e.start;
  for (var j = 0u; j < 2u; j++) {
    let f = polynomial(row, last, col + j * shape.expand4);
    if (j == 0u) {
      a = tile_multiply(a, f);
    } else {
      b = tile_multiply(b, f);
    }
  }
  return Expansion(e.start, tile_turn(a, b, -1.0, row, last, i / 2u, channel), tile_turn(b, a, 1.0, row, last, i / 2u, channel));
}

fn expanded(e: Expansion, j: u32) -> Tile {
  if (j == 0u) {
    return e.first;
  }
  return e.second;
}
