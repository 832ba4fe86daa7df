import { expect, test } from 'vitest';
import { formatDateTime, formatNumber, formatTime } from '../src/format';

const NOON_UTC = Date.UTC(2026, 10, 26, 12);

test('numbers have at most the given decimals, and missing ones are a dash', () => {
  expect(formatNumber(1234.567, 1)).toBe('1,234.6');
  expect(formatNumber(1234.567)).toBe('1,235');
  expect(formatNumber(2, 3)).toBe('2');
  expect([null, undefined, NaN].map((value) => formatNumber(value))).toEqual(['–', '–', '–']);
});

test('times are those of the time zone', () => {
  expect(formatTime(NOON_UTC, 'America/New_York')).toBe('07:00');
  expect(formatTime(NOON_UTC + 5_000, 'UTC', true)).toBe('12:00:05');
  expect(formatDateTime('2026-11-26T12:00:00Z', 'America/New_York')).toBe('26 Nov 2026, 07:00');
});
