// The sum of a stream, kept in LEVELS partial sums: level 0 takes every addition; after 64 of them it is added to level 1 and starts anew, and
// so on. A million additions then round like some hundred. It needs no compensation term, which compilers may cancel.
//
//   levels [LEVELS, batch, k·E]      entry[0]: how many levels, from 0 up, are full after this addition

const LEVELS: u32 = 4u;

// Adds to the state's sum and returns the whole of it. `at` is the element of level 0, `plane` the size of a level.
fn add_to_levels(at: u32, plane: u32, full: u32, value: vec4f) -> vec4f {
  var sum = levels[at] + value;
  var total = vec4f();
  for (var level = 0u; level + 1u < LEVELS; level++) {
    let here = at + level * plane;
    let above = levels[here + plane];
    if (level < full) {
      levels[here] = vec4f();
      sum += above;
    } else {
      levels[here] = sum;
      total += sum;
      sum = above;
    }
  }
  levels[at + (LEVELS - 1u) * plane] = sum;
  return total + sum;
}
