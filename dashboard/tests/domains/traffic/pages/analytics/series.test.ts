import { expect, test } from 'vitest';
import { alignSeries } from '../../../../../src/domains/traffic/pages/analytics/series';

test('both lines are on one axis; a null is a gap and a time of the other line is not', () => {
  const data = alignSeries({ rows: [[1_000, 20, 4], [3_000, null, null]], week_before: [[2_000, 30, 5]] }, 1);
  expect(data.times).toEqual([1, 2, 3]);
  expect(data.current).toEqual([20, undefined, null]);
  expect(data.weekBefore).toEqual([undefined, 30, undefined]);
});
