// What the three pipelines share.

struct Scene {
  view_projection: mat4x4f,
  // Of the canvas, in its pixels.
  viewport: vec2f,
}

@group(0) @binding(0) var<uniform> scene: Scene;

// A distance in pixels as one in clip space, at this depth.
fn pixels(distance: vec2f, w: f32) -> vec2f {
  return 2.0 * distance / scene.viewport * w;
}

// Corners (-1 or 1) of two triangles that make a square.
fn corner(vertex: u32) -> vec2f {
  let x = select(-1.0, 1.0, vertex == 1u || vertex == 2u || vertex == 4u);
  let y = select(-1.0, 1.0, vertex == 2u || vertex == 4u || vertex == 5u);
  return vec2f(x, y);
}
