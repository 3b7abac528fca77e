// Images cut into square patches, a row a patch: with linear.wgsl the convolution whose stride is its kernel.
//
//   rows[(b, n), (c, i, j)] = image[b, c, (n / columns)·p + i, (n mod columns)·p + j]
//
//   image [B, C, H, W]     rows [B·n, C·p·p], patches in row-major order; what does not fill a patch is dropped
//
// Numbers of a row are c·channel_step + (i·p + j)·pixel_step: (c, i, j) above, (i, j, c) for the gradients of what unpatchify.wgsl puts together.
//
// One invocation owns one number. Cost: reads and writes B·n·C·p·p.

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
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> rows: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size) {
    return;
  }
  let p = shape.side;
  let length = p * p * shape.channels;
  let inside = index % length;
  let pixel = inside / shape.pixel_step % (p * p);
  let j = pixel % p;
  let i = pixel / p;
  let c = inside / shape.channel_step % shape.channels;
  let row = index / length;
  let n = row % shape.patches;
  let y = n / shape.columns * p + i;
  let x = n % shape.columns * p + j;
  rows[index] = image[shape.image_offset + ((row / shape.patches * shape.channels + c) * shape.height + y) * shape.width + x];
}
