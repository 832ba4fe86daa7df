import { expect, test } from 'vitest';
import { domains } from '../../../src/domains';
import { summarizeScore } from '../../../src/pages/operations/scoreSummary';

const score = { model: 'm', id: '1' };

test('a score that no domain declares as notable needs no attention', () => {
  expect(domains.flatMap(({ scoreKinds }) => scoreKinds ?? []).length).toBeGreaterThan(0);
  expect(summarizeScore(score)).toBeNull();
  expect(summarizeScore({ ...score, is_anomaly: false, is_fraud: false, priority: 'low' })).toBeNull();
});

test('a score without its subject has an empty one', () => {
  expect(summarizeScore({ ...score, priority: 'critical' })).toEqual({ subject: '', summary: '' });
});
