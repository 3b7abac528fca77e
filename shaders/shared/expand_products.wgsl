// HoM's moments out of a tile of projections, one order at a time: m_1 = start ⊙ act(z_1), m_i = act(z_i) ⊙ m_(i-1). A kernel that has an expand
// file walks its chunks of channels and calls `expand` at every EXPANDED-th; `shape` has order, expand4, inner4 and w_stride4.

const EXPANDED: u32 = 1u;

alias Expansion = Tile;

// `start` multiplies every moment: the tokens' weights, or ones.
fn expansion_of(start: Tile) -> Expansion {
  return start;
}

// Chunks from i on, of the rows from `row` on, channels from `channel` on; rows past `last` repeat it.
fn expand(e: Expansion, row: u32, last: u32, i: u32, channel: u32) -> Expansion {
  return tile_multiply(e, tile_activate(tile_linear(row, last, i * shape.expand4 + channel, shape.inner4, shape.w_stride4)));
}

// Chunk i + j of the last expansion.
fn expanded(e: Expansion, j: u32) -> Tile {
  return e;
}
