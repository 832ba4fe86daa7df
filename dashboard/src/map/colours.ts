// Okabe and Ito's palette, and cividis for what is continuous: told apart with any kind of colour vision. What colour
// says is said by height and in words too.

export type Rgb = readonly [number, number, number];
export type Level = 'low' | 'medium' | 'high';

export const LEVELS: Record<Level, Rgb> = {
  low: [86, 180, 233],
  medium: [240, 228, 66],
  high: [213, 94, 0],
};
export const LEVEL_NAMES: Record<Level, string> = { low: 'free', medium: 'slow', high: 'congested' };
export const UNKNOWN: Rgb = [150, 150, 150];

const CIVIDIS: Rgb[] = [
  [0, 34, 78],
  [53, 69, 108],
  [102, 105, 112],
  [148, 142, 119],
  [200, 184, 102],
  [254, 232, 56],
];

export function speedColour(speed: number, fastest = 60): Rgb {
  const place = Math.min(1, Math.max(0, speed / fastest)) * (CIVIDIS.length - 1);
  const low = Math.floor(place);
  const a = CIVIDIS[low]!;
  const b = CIVIDIS[Math.min(low + 1, CIVIDIS.length - 1)]!;
  const share = place - low;
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

// The server's thresholds (km/h), as traffic's transforms have them; set from /api/current-traffic.
export const thresholds = { high: 12, medium: 22 };

export function level(speed: number | null): Level | null {
  if (speed === null) return null;
  return speed < thresholds.high ? 'high' : speed < thresholds.medium ? 'medium' : 'low';
}

export const css = ([r, g, b]: Rgb) => `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
