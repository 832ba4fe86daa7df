// Labels of chart axes: no two ticks of an axis have the same label.

import { formatTime } from '../../../../format';

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Longer axes have a tick per day or more, and show dates only. */
const DATES_ONLY_FROM = 4 * DAY;
const SHORT_STEPS = [
  ...[1, 5, 10, 30],
  ...[1, 5, 10, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12].map((hours) => hours * HOUR),
  DAY,
];
const LONG_STEPS = [DAY, 2 * DAY, 7 * DAY];

/** The distances between ticks (s) that fit an axis of `span` seconds. */
export const timeSteps = (span: number): number[] => (span >= DATES_ONLY_FROM ? LONG_STEPS : SHORT_STEPS);

const date = (ms: number, timeZone: string) =>
  new Intl.DateTimeFormat('en-GB', { timeZone, day: 'numeric', month: 'short' }).format(ms);

/** Distinguishes the two equal hours at the end of summer time. */
const zone = (ms: number, timeZone: string) =>
  new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'short' }).formatToParts(ms).at(-1)?.value ?? '';

/**
 * The labels of ticks on a time axis (s since the epoch, ascending): dates if all ticks are at midnight, else times. A
 * second line with the date is added where times alone repeat.
 */
export function timeLabels(ticks: number[], timezone: string): string[] {
  const times = ticks.map((tick) => tick * 1000);
  const isMidnight = (ms: number) => formatTime(ms, timezone, true) === '00:00:00';
  if (times.length > 1 && times.every(isMidnight)) return times.map((ms) => date(ms, timezone));
  const seconds = times.some((ms) => ms % 60_000 !== 0);
  const time = (ms: number) => formatTime(ms, timezone, seconds);
  const formats = [
    time,
    (ms: number) => `${time(ms)}\n${date(ms, timezone)}`,
    (ms: number) => `${time(ms)} ${zone(ms, timezone)}\n${date(ms, timezone)}`,
  ];
  const labels = formats.map((format) => times.map(format));
  return labels.find(areDistinct) ?? labels.at(-1)!;
}

/** The labels of ticks on an axis of numbers, with as many decimals as their distance needs. */
export function numberLabels(ticks: number[]): string[] {
  const step = ticks.length > 1 ? ticks[1]! - ticks[0]! : 1;
  const digits = DECIMALS.find((decimals) => isInteger(step * 10 ** decimals)) ?? DECIMALS.at(-1)!;
  return ticks.map((tick) => tick.toLocaleString('en', { maximumFractionDigits: digits }));
}

const DECIMALS = [0, 1, 2, 3, 4, 5, 6];
const isInteger = (value: number) => Math.abs(value - Math.round(value)) < 1e-6 * value;
const areDistinct = (labels: string[]) => new Set(labels).size === labels.length;
