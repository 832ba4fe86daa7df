import { expect, test } from 'vitest';
import { congestionLevel, css, speedColour, thresholds, UNKNOWN_COLOUR } from '../../../../src/domains/traffic/map/colours';

test('speeds outside the scale have the colours of its ends', () => {
  expect(css(speedColour(-5))).toBe('rgb(0 34 78)');
  expect(css(speedColour(0))).toBe('rgb(0 34 78)');
  expect(css(speedColour(60))).toBe('rgb(254 232 56)');
  expect(css(speedColour(200))).toBe('rgb(254 232 56)');
});

test('a vehicle of unknown speed is grey', () => {
  expect(speedColour(null)).toEqual(UNKNOWN_COLOUR);
});

test('a faster vehicle is brighter', () => {
  const brightness = Array.from({ length: 61 }, (_, speed) => speedColour(speed)).map(([r, g]) => r + g);
  expect(brightness).toEqual([...brightness].sort((a, b) => a - b));
  expect(new Set(brightness).size).toBe(61);
});

test('a level begins at its threshold', () => {
  const limits = { high: 10, medium: 20 };
  expect([0, 9.9, 10, 19.9, 20, 90].map((speed) => congestionLevel(speed, limits))).toEqual([
    ...['high', 'high'],
    ...['medium', 'medium'],
    ...['low', 'low'],
  ]);
});

test('without limits the thresholds of the server are used', () => {
  expect(congestionLevel(thresholds.high - 1)).toBe('high');
  expect(congestionLevel(thresholds.medium)).toBe('low');
});

test('an unknown speed has no level', () => {
  expect(congestionLevel(null)).toBeNull();
});
