// Columns of packed weights, transposed into packed weights of their own: with them the product with a layer's gradient is a plain linear.
//
//   transposed[c, i] = scale w[i, first + c],   transposed[count, i] = 0 (the bias)
//
//   w           [inner + 1, outer]    its last row, the bias, is not read
//   transposed  [count + 1, inner]
//
// All four lengths are multiples of 4. One invocation owns 4 x 4 numbers, a workgroup 32 x 32: 8 neighbours read 128 bytes of a row, and
// 8 neighbours the other way write as many. Cost: reads and writes inner·count.

struct Shape {
  inner4: u32,
  stride4: u32,
  first4: u32,
  count4: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> transposed: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32, @builtin(num_workgroups) grid: vec3u) {
  let index = group.x + group.y * grid.x;
  let tiles = (shape.count4 + 7u) / 8u;
  let col = index % tiles * 8u + local % 8u;
  let row = index / tiles * 8u + local / 8u;
  if (row >= shape.inner4 || col >= shape.count4) {
    return;
  }
  let src = 4u * row * shape.stride4 + shape.first4 + col;
  let block = shape.scale * transpose(mat4x4f(w[src], w[src + shape.stride4], w[src + 2u * shape.stride4], w[src + 3u * shape.stride4]));
  let dst = 4u * col * shape.inner4 + row;
  transposed[dst] = block[0];
  transposed[dst + shape.inner4] = block[1];
  transposed[dst + 2u * shape.inner4] = block[2];
  transposed[dst + 3u * shape.inner4] = block[3];
  if (col == 0u) {
    transposed[4u * shape.count4 * shape.inner4 + row] = vec4f();
  }
}
