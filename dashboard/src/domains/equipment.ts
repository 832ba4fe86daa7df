import { formatNumber } from '../format';
import type { Domain } from './domain';

export const equipment: Domain = {
  sources: 'machines',
  scoreKinds: [
    {
      isNotable: (score) => score.is_anomaly === true,
      subject: 'machine_id',
      summary: (score) => `anomaly, score ${formatNumber(score.anomaly_score as number, 2)}`,
    },
    {
      isNotable: (score) => score.priority === 'critical',
      subject: 'machine_id',
      summary: (score) => String(score.recommended_action ?? ''),
    },
  ],
};
