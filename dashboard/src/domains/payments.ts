import { formatNumber } from '../format';
import type { Domain } from './domain';

export const payments: Domain = {
  sources: 'payments',
  scoreKinds: [
    {
      isNotable: (score) => score.is_fraud === true,
      subject: 'card',
      summary: (score) => `fraud, probability ${formatNumber(score.fraud_probability as number, 2)}`,
    },
  ],
};
