import { expect, test } from 'vitest';
import { summarizeScore } from '../../src/pages/operations/scoreSummary';

const score = { model: 'm', id: '1' };

test('an anomaly of a machine needs attention', () => {
  expect(summarizeScore({ ...score, is_anomaly: true, machine_id: 'pump-1', anomaly_score: 3.217 })).toEqual({
    subject: 'pump-1',
    summary: 'anomaly, score 3.22',
  });
});

test('a machine in a critical state needs the recommended action', () => {
  expect(summarizeScore({ ...score, priority: 'critical', machine_id: 'pump-2', recommended_action: 'stop' })).toEqual({
    subject: 'pump-2',
    summary: 'stop',
  });
});
