// The palette of Okabe and Ito for levels, and cividis for speed: both can be distinguished with any kind of colour
// vision. The map shows the same values by height and in words.

export type Rgb = readonly [number, number, number];
export type Level = 'low' | 'medium' | 'high';

export const LEVELS: readonly Level[] = ['low', 'medium', 'high'];
export const LEVEL_COLOURS: Record<Level, Rgb> = {
  low: [86, 180, 233],
  medium: [240, 228, 66],
  high: [213, 94, 0],
};
export const LEVEL_NAMES: Record<Level, string> = { low: 'free', medium: 'slow', high: 'congested' };
export const UNKNOWN_COLOUR: Rgb = [150, 150, 150];
export const FASTEST_KMH = 60;

const CIVIDIS: readonly Rgb[] = [
  [0, 34, 78],
  [53, 69, 108],
  [102, 105, 112],
  [148, 142, 119],
  [200, 184, 102],
  [254, 232, 56],
];

/** The colour of a speed in km/h, on a scale from 0 to `fastest`; grey if it is unknown. */
export function speedColour(speed: number | null, fastest = FASTEST_KMH): Rgb {
  if (speed === null) return UNKNOWN_COLOUR;
  const position = Math.min(1, Math.max(0, speed / fastest)) * (CIVIDIS.length - 1);
  const lower = Math.floor(position);
  const a = CIVIDIS[lower]!;
  const b = CIVIDIS[Math.min(lower + 1, CIVIDIS.length - 1)]!;
  const share = position - lower;
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

export interface Thresholds {
  /** Below this mean speed (km/h) a cell is congested. */
  high: number;
  /** Below this mean speed (km/h) a cell is slow. */
  medium: number;
}

/** The server's thresholds; the map sets them from /api/current-traffic. */
export const thresholds: Thresholds = { high: 12, medium: 22 };

/** The congestion level of a mean speed in km/h. */
export function congestionLevel(speed: number | null, { high, medium }: Thresholds = thresholds): Level | null {
  if (speed === null) return null;
  if (speed < high) return 'high';
  return speed < medium ? 'medium' : 'low';
}

export const css = ([r, g, b]: Rgb) => `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
