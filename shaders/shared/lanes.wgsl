// SPLIT lanes of a workgroup share a tile: each walks a part of the inner dimension, whole groups of W_GROUP4, and their sums are added in a fixed
// order. Neighbouring invocations own neighbouring tiles, and load neighbouring weights. All invocations of a workgroup must call lanes_sum; those
// without a tile of their own repeat the last row.

alias LaneRows = array<vec4f, TILE_ROWS>;

const LANE_TILES: u32 = WORKGROUP_SIZE / SPLIT;

var<private> lane_place: u32 = 0u;
var<workgroup> sh_lanes: array<array<vec4f, WORKGROUP_SIZE>, TILE_ROWS>;

// The tile of an invocation. A kernel calls it first.
fn lanes_tile(index: u32) -> u32 {
  lane_place = index % WORKGROUP_SIZE;
  return index / WORKGROUP_SIZE * LANE_TILES + lane_place % LANE_TILES;
}

// Whether an invocation goes on.
fn lanes_run(inside: bool) -> bool {
  return true;
}

// Which of the tile's lanes this is: it stores rows lanes_first(), lanes_first() + SPLIT and so on.
fn lanes_first() -> u32 {
  return lane_place / LANE_TILES;
}

// Steps of 4 inputs that a lane takes.
fn lanes_start() -> u32 {
  return lanes_first() * W_GROUP4;
}

fn lanes_next(k: u32) -> u32 {
  return select(k + 1u, k + 1u + (SPLIT - 1u) * W_GROUP4, (k + 1u) % W_GROUP4 == 0u);
}

// The sums of a tile's rows over its lanes, for each of them: four at a time.
fn lanes_sum(part: LaneRows) -> LaneRows {
  var sum = part;
  for (var tiles = WORKGROUP_SIZE / 4u; tiles >= LANE_TILES; tiles /= 4u) {
    for (var r = 0u; r < TILE_ROWS; r++) {
      sh_lanes[r][lane_place] = sum[r];
    }
    workgroupBarrier();
    let at = lane_place % tiles;
    for (var r = 0u; r < TILE_ROWS; r++) {
      sum[r] = (sh_lanes[r][at] + sh_lanes[r][at + tiles]) + (sh_lanes[r][at + 2u * tiles] + sh_lanes[r][at + 3u * tiles]);
    }
    workgroupBarrier();
  }
  return sum;
}
