import { expect, test } from 'vitest';
import { retryDelay } from '../../src/api/retry';

test('the delay doubles with each failure, up to ten seconds', () => {
  const delays = [1, 2, 3, 4, 5, 6, 1_000].map((failures) => retryDelay(failures, 0.5));
  expect(delays).toEqual([500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
});

test('the delay varies by at most 30 %', () => {
  expect(retryDelay(1, 0)).toBeCloseTo(350);
  expect(retryDelay(1, 1)).toBeCloseTo(650);
});
