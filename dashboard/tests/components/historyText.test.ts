import { expect, test } from 'vitest';
import type { HistoryStatus } from '../../src/api/generated';
import { historyText, isBeingMade } from '../../src/components/historyText';

const running: HistoryStatus = {
  state: 'running',
  percent: 62,
  step: 'table vehicle_speeds',
  days: 14,
  error: null,
};

test('a history is being made until it is complete or nothing continues it', () => {
  expect(isBeingMade(running)).toBe(true);
  expect(isBeingMade({ ...running, state: 'restarting' })).toBe(true);
  expect(isBeingMade({ ...running, state: 'down' })).toBe(false);
  expect(isBeingMade({ ...running, state: 'done', percent: 100 })).toBe(false);
  expect(isBeingMade(null)).toBe(false);
  expect(isBeingMade(undefined)).toBe(false);
});

test('the text has the percent, and the step or what failed', () => {
  expect(historyText(running)).toBe('Making 14 days of history: 62 %, table vehicle_speeds');
  expect(historyText({ ...running, state: 'restarting' })).toBe(
    'Making 14 days of history: 62 %, continues in a moment',
  );
  expect(historyText({ ...running, state: 'restarting', error: 'table vehicle_speeds: disk full' })).toBe(
    'Making 14 days of history: 62 %. A step failed and is tried again. table vehicle_speeds: disk full',
  );
});
