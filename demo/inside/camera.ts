import { mat4 } from "wgpu-matrix";

/** Turns around the origin. */
export interface Orbit {
  /** Radians around the vertical axis, and above the horizontal plane. */
  readonly yaw: number;
  readonly pitch: number;
  readonly distance: number;
}

export const FIRST_ORBIT: Orbit = { yaw: 0.6, pitch: 0.35, distance: 3.6 };

/** The path lies in a ball of radius 1: from here on nothing is behind the camera. */
const NEAREST = 1.4;
const FARTHEST = 8;
const STEEPEST = 1.5;
const MARGIN = 1.25;
const FIELD = (38 * Math.PI) / 180;

/** The orbit moved by so much, within what can be looked at. */
export function moved(orbit: Orbit, yaw: number, pitch: number, zoom: number): Orbit {
  return {
    yaw: (orbit.yaw + yaw) % (2 * Math.PI),
    pitch: Math.min(STEEPEST, Math.max(-STEEPEST, orbit.pitch + pitch)),
    distance: Math.min(FARTHEST, Math.max(NEAREST, orbit.distance * zoom)),
  };
}

/** From space to clip space. */
export function viewProjection({ yaw, pitch, distance }: Orbit, aspect: number): Float32Array {
  const flat = distance * Math.cos(pitch);
  const eye = [flat * Math.sin(yaw), distance * Math.sin(pitch), flat * Math.cos(yaw)];
  // On a narrow canvas the whole ball has to fit the width, with its axes' names.
  const field = aspect < MARGIN ? 2 * Math.atan((MARGIN * Math.tan(FIELD / 2)) / aspect) : FIELD;
  return mat4.multiply(mat4.perspective(field, aspect, 0.1, 20), mat4.lookAt(eye, [0, 0, 0], [0, 1, 0])) as Float32Array;
}

/** Where a place in space is seen, in fractions of the canvas from its upper left corner. */
export function seenAt(matrix: Float32Array, [x = 0, y = 0, z = 0]: readonly number[]): [number, number] {
  const row = (i: number) => (matrix[i] ?? 0) * x + (matrix[4 + i] ?? 0) * y + (matrix[8 + i] ?? 0) * z + (matrix[12 + i] ?? 0);
  const w = row(3);
  return [0.5 + 0.5 * (row(0) / w), 0.5 - 0.5 * (row(1) / w)];
}
