import { expect, test } from 'vitest';
import { numberLabels, timeLabels, timeSteps } from '../../../../../src/domains/traffic/pages/analytics/axis';

const ZONE = 'America/New_York';
const HOUR = 3_600;
const DAY = 24 * HOUR;
/** Midnight in New York. */
const MIDNIGHT = Date.UTC(2026, 10, 20, 5) / 1000;

/** Ticks at the multiples of `step` after midnight that are in the span, in seconds. */
const ticks = (step: number, span: number, start = MIDNIGHT) =>
  Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => start + index * step);

const expectDistinct = (labels: string[]) => expect(new Set(labels).size).toBe(labels.length);

test('within a day the labels are times', () => {
  expect(timeLabels(ticks(6 * HOUR, 18 * HOUR), ZONE)).toEqual(['00:00', '06:00', '12:00', '18:00']);
});

test('times that repeat have the date below them', () => {
  const labels = timeLabels(ticks(12 * HOUR, 2 * DAY), ZONE);
  expect(labels).toEqual(['00:00\n20 Nov', '12:00\n20 Nov', '00:00\n21 Nov', '12:00\n21 Nov', '00:00\n22 Nov']);
});

test('ticks within a minute have seconds', () => {
  expect(timeLabels(ticks(30, 60), ZONE)).toEqual(['00:00:00', '00:00:30', '00:01:00']);
});

test('an axis over seven days shows dates', () => {
  expect(timeSteps(7 * DAY)[0]).toBe(DAY);
  const labels = timeLabels(ticks(DAY, 7 * DAY), ZONE);
  expect(labels).toEqual(['20 Nov', '21 Nov', '22 Nov', '23 Nov', '24 Nov', '25 Nov', '26 Nov', '27 Nov']);
});

test('the dates are those of the time zone of the city', () => {
  expect(timeLabels(ticks(DAY, DAY), 'UTC')).toEqual(['05:00\n20 Nov', '05:00\n21 Nov']);
});

test('no two labels are equal, whatever the range and the distance of ticks', () => {
  for (const span of [10, 60, 600, HOUR, 6 * HOUR, DAY, 2 * DAY, 4 * DAY, 7 * DAY, 14 * DAY])
    for (const step of timeSteps(span)) if (span / step <= 40) expectDistinct(timeLabels(ticks(step, span), ZONE));
});

test('the hour that comes twice at the end of summer time has its zone', () => {
  const start = Date.UTC(2026, 10, 1, 4) / 1000;
  const labels = timeLabels(ticks(HOUR, 3 * HOUR, start), ZONE);
  expect(labels).toEqual(['00:00 EDT\n1 Nov', '01:00 EDT\n1 Nov', '01:00 EST\n1 Nov', '02:00 EST\n1 Nov']);
});

test('days are dates also when one of them has 25 hours', () => {
  const days = [1, 2].map((day) => Date.UTC(2026, 10, day, day === 1 ? 4 : 5) / 1000);
  expect(timeLabels(days, ZONE)).toEqual(['1 Nov', '2 Nov']);
});

test('numbers have as many decimals as their distance needs', () => {
  expect(numberLabels([0, 1_000, 2_000])).toEqual(['0', '1,000', '2,000']);
  expect(numberLabels([2.5, 5, 7.5])).toEqual(['2.5', '5', '7.5']);
  expect(numberLabels([19.25, 19.5, 19.75])).toEqual(['19.25', '19.5', '19.75']);
  expectDistinct(numberLabels([20, 20.0002, 20.0004]));
  expect(numberLabels([7])).toEqual(['7']);
});
