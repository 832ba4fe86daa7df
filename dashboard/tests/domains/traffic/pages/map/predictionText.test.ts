import { expect, test } from 'vitest';
import { predictionText } from '../../../../../src/domains/traffic/pages/map/predictionText';

test('a prediction has its interval or its confidence, or a reason why it is missing', () => {
  const model = 'traffic_speed_15';
  expect(predictionText({ model, version: null })).toBe('has no champion yet');
  expect(predictionText({ model, version: 3 })).toBe('gives no prediction: its features are too old');
  expect(predictionText({ model, version: 3, prediction: 21.5, low: 18, high: 25.25 })).toBe(
    '21.5 (18 to 25.3), version 3',
  );
  expect(predictionText({ model, version: 3, prediction: 'high', low: null, confidence: 0.82 })).toBe(
    'high (82 %), version 3',
  );
});
