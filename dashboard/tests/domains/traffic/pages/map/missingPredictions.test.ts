import { expect, test } from 'vitest';
import type { HistoryStatus } from '../../../../../src/api/generated';
import {
  explainMissing,
  isPredictionMissing,
} from '../../../../../src/domains/traffic/pages/map/missingPredictions';

const dark = { cell: '882a100d2dfffff', vehicles: 3, speed: null, level: null };
const coloured = { ...dark, speed: 21.5 };
const history: HistoryStatus = { state: 'running', percent: 62, step: 'model a', days: 14, error: null };

test('a prediction is missing where one is selected and no cell has a speed', () => {
  expect(isPredictionMissing([dark], 15)).toBe(true);
  expect(isPredictionMissing([], 15)).toBe(true);
  expect(isPredictionMissing([dark, coloured], 15)).toBe(false);
  expect(isPredictionMissing([dark], 0)).toBe(false);
});

test('while the history is made, predictions come with it, also on a map that is still empty', () => {
  const text =
    'No model predicts the traffic in 15 minutes yet. Models are trained on the history of the city. ' +
    'Predictions come when it is made: 62 %.';
  expect(explainMissing([dark], 15, history)).toBe(text);
  expect(explainMissing([], 15, history)).toBe(text);
  expect(explainMissing([dark, coloured], 15, history)).toBe('');
});

test('without a history that is being made, a model comes with enough data', () => {
  const text =
    'No model predicts the traffic in 5 minutes yet. A model is trained when there is enough data, ' +
    'some hours after the first start.';
  expect(explainMissing([dark], 5, null)).toBe(text);
  expect(explainMissing([dark], 5, { ...history, state: 'down' })).toBe(text);
  expect(explainMissing([], 5, null)).toBe('');
});
