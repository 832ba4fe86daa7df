import { expect, test } from 'vitest';
import { summarizeScore } from '../../src/pages/operations/scoreSummary';

test('a fraud needs attention', () => {
  const score = { model: 'm', id: '1', is_fraud: true, card: 'c-7', fraud_probability: 0.9 };
  expect(summarizeScore(score)).toEqual({ subject: 'c-7', summary: 'fraud, probability 0.9' });
});
