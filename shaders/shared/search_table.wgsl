// The largest s in [0, count) with table[first + s] <= value, for a table that does not decrease: the segment that holds a position.

fn search_table(first: u32, count: u32, value: u32) -> u32 {
  var low = 0u;
  var high = count;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (table[first + middle] <= value) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}
