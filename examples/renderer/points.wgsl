// Each instance is a small square at its point of the grid, moved by what the layer put out for it.
struct Point {
  @builtin(position) position: vec4f,
  @location(0) colour: vec4f,
}

@vertex
fn vertex(@builtin(vertex_index) corner: u32, @location(0) home: vec4f, @location(1) moved: vec4f) -> Point {
  let offset = vec2f(f32(corner % 2u), f32(corner / 2u)) * 0.012 - 0.006;
  let shift = moved.xy / (1.0 + abs(moved.xy));
  return Point(vec4f(0.8 * home.xy + 0.3 * shift + offset, 0.0, 1.0), vec4f(0.55 + 0.45 * shift, 0.9, 1.0));
}

@fragment
fn fragment(point: Point) -> @location(0) vec4f {
  return point.colour;
}
