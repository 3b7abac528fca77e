// Straight lines as wide as so many pixels, from one colour to another. The camera keeps away from them: no end is behind it.

struct Line {
  // xyz, and the width in pixels
  start: vec4f,
  end: vec4f,
  start_colour: vec4f,
  end_colour: vec4f,
}

@group(0) @binding(1) var<storage, read> lines: array<Line>;

struct Corner {
  @builtin(position) position: vec4f,
  @location(0) colour: vec4f,
}

@vertex
fn vertex(@builtin(vertex_index) index: u32, @builtin(instance_index) instance: u32) -> Corner {
  let line = lines[instance];
  let a = scene.view_projection * vec4f(line.start.xyz, 1.0);
  let b = scene.view_projection * vec4f(line.end.xyz, 1.0);
  let along = (b.xy / b.w - a.xy / a.w) * scene.viewport;
  let direction = along / max(length(along), 1e-6);
  let at = corner(index);
  let atEnd = at.x > 0.0;
  var position = select(a, b, atEnd);
  let side = vec2f(-direction.y, direction.x) * at.y * 0.5 * line.start.w;
  position = vec4f(position.xy + pixels(side, position.w), position.zw);
  return Corner(position, select(line.start_colour, line.end_colour, atEnd));
}

@fragment
fn fragment(@location(0) colour: vec4f) -> @location(0) vec4f {
  return vec4f(colour.rgb * colour.a, colour.a);
}
