// Discs of a radius in pixels, with a rim in the colour of the ground, so that neighbours stay apart.

struct Point {
  // xyz, and the radius in pixels
  position: vec4f,
  colour: vec4f,
  rim: vec4f,
}

@group(0) @binding(1) var<storage, read> points: array<Point>;

const RIM = 1.5;

struct Corner {
  @builtin(position) position: vec4f,
  // From the middle, in pixels.
  @location(0) at: vec2f,
  @location(1) @interpolate(flat) instance: u32,
}

@vertex
fn vertex(@builtin(vertex_index) index: u32, @builtin(instance_index) instance: u32) -> Corner {
  let point = points[instance];
  let middle = scene.view_projection * vec4f(point.position.xyz, 1.0);
  let at = corner(index) * (point.position.w + RIM + 0.5);
  return Corner(vec4f(middle.xy + pixels(at, middle.w), middle.zw), at, instance);
}

@fragment
fn fragment(in: Corner) -> @location(0) vec4f {
  let point = points[in.instance];
  let distance = length(in.at);
  let radius = point.position.w;
  // Edges as soft as a pixel is wide.
  let inside = clamp(radius + RIM + 0.5 - distance, 0.0, 1.0);
  if (inside == 0.0) {
    discard;
  }
  let colour = mix(point.colour, point.rim, clamp(distance - radius + 0.5, 0.0, 1.0));
  let alpha = colour.a * inside;
  return vec4f(colour.rgb * alpha, alpha);
}
