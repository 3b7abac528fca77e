// Rows of patches put together to images.
//
//   image[b, c, y, x] = rows[(b, (y / p)·columns + x / p), (y mod p, x mod p, c)]
//
//   rows [B·n, p·p·C]     image [B, C, H, W], 0 where there is no whole patch
//
// Numbers of a row are c·channel_step + (i·p + j)·pixel_step: (i, j, c) above, (c, i, j) for the gradients of what patchify.wgsl takes apart.
//
// One invocation owns one pixel of one channel. Cost: reads and writes B·C·H·W.

struct Shape {
  image_offset: u32,
  channels: u32,
  height: u32,
  width: u32,
  side: u32,
  columns: u32,
  patches: u32,
  channel_step: u32,
  pixel_step: u32,
  size: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read_write> image: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size) {
    return;
  }
  let p = shape.side;
  let x = index % shape.width;
  let y = index / shape.width % shape.height;
  let c = index / (shape.width * shape.height) % shape.channels;
  let b = index / (shape.width * shape.height * shape.channels);
  let n = y / p * shape.columns + x / p;
  var value = 0.0;
  if (x / p < shape.columns && n < shape.patches) {
    let inside = (y % p * p + x % p) * shape.pixel_step + c * shape.channel_step;
    value = rows[(b * shape.patches + n) * p * p * shape.channels + inside];
  }
  image[shape.image_offset + index] = value;
}
