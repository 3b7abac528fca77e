// Characters out of a texture, beside a place in space, always facing the viewer.

struct Glyph {
  // Where in space, and nothing.
  position: vec4f,
  // The lower left corner from there in pixels, then the size.
  box: vec4f,
  // The same box in the texture: upper left corner and size, from 0 to 1.
  source: vec4f,
  colour: vec4f,
}

@group(0) @binding(1) var<storage, read> glyphs: array<Glyph>;
@group(0) @binding(2) var atlas: texture_2d<f32>;
@group(0) @binding(3) var smooth_sampler: sampler;

struct Corner {
  @builtin(position) position: vec4f,
  @location(0) source: vec2f,
  @location(1) colour: vec4f,
}

@vertex
fn vertex(@builtin(vertex_index) index: u32, @builtin(instance_index) instance: u32) -> Corner {
  let glyph = glyphs[instance];
  let place = scene.view_projection * vec4f(glyph.position.xyz, 1.0);
  let at = 0.5 * corner(index) + 0.5;
  let position = vec4f(place.xy + pixels(glyph.box.xy + at * glyph.box.zw, place.w), place.zw);
  let source = glyph.source.xy + vec2f(at.x, 1.0 - at.y) * glyph.source.zw;
  return Corner(position, source, glyph.colour);
}

@fragment
fn fragment(in: Corner) -> @location(0) vec4f {
  return vec4f(in.colour.rgb, 1.0) * (textureSample(atlas, smooth_sampler, in.source).a * in.colour.a);
}
