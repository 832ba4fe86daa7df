import { expect, test } from 'vitest';
import { summarizeScore } from '../../../src/pages/operations/scoreSummary';

test('anomalies, frauds and critical machines need attention; other scores do not', () => {
  const score = { model: 'm', id: '1' };
  expect(summarizeScore({ ...score, is_anomaly: true, machine_id: 'pump-1', anomaly_score: 3.217 })).toEqual({
    subject: 'pump-1',
    summary: 'anomaly, score 3.22',
  });
  expect(summarizeScore({ ...score, is_fraud: true, card: 'c-7', fraud_probability: 0.9 })).toEqual({
    subject: 'c-7',
    summary: 'fraud, probability 0.9',
  });
  expect(summarizeScore({ ...score, priority: 'critical', machine_id: 'pump-2', recommended_action: 'stop' })).toEqual({
    subject: 'pump-2',
    summary: 'stop',
  });
  expect(summarizeScore({ ...score, is_anomaly: false, is_fraud: false, priority: 'low' })).toBeNull();
});
