// The functions of lanes.wgsl where an invocation has a tile for itself.

alias LaneRows = array<vec4f, TILE_ROWS>;

const SPLIT: u32 = 1u;

fn lanes_tile(index: u32) -> u32 {
  return index;
}

fn lanes_run(inside: bool) -> bool {
  return inside;
}

fn lanes_first() -> u32 {
  return 0u;
}

fn lanes_start() -> u32 {
  return 0u;
}

fn lanes_next(k: u32) -> u32 {
  return k + 1u;
}

fn lanes_sum(sum: LaneRows) -> LaneRows {
  return sum;
}
