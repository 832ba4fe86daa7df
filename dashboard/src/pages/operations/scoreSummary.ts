// What a score of a single event means to an operator. Each kind of model adds its kind of score here.

import { formatNumber } from '../../format';
import type { Score } from '../../live/messages';

interface ScoreKind {
  /** Whether an operator should look at the event. */
  isNotable: (score: Score) => boolean;
  /** The field that names what the event is about. */
  subject: string;
  summary: (score: Score) => string;
}

const KINDS: ScoreKind[] = [
  {
    isNotable: (score) => score.is_anomaly === true,
    subject: 'machine_id',
    summary: (score) => `anomaly, score ${formatNumber(score.anomaly_score as number, 2)}`,
  },
  {
    isNotable: (score) => score.is_fraud === true,
    subject: 'card',
    summary: (score) => `fraud, probability ${formatNumber(score.fraud_probability as number, 2)}`,
  },
  {
    isNotable: (score) => score.priority === 'critical',
    subject: 'machine_id',
    summary: (score) => String(score.recommended_action ?? ''),
  },
];

export interface ScoreSummary {
  subject: string;
  summary: string;
}

/** A score as texts; null for a score that needs no attention. */
export function summarizeScore(score: Score): ScoreSummary | null {
  const kind = KINDS.find(({ isNotable }) => isNotable(score));
  return kind ? { subject: String(score[kind.subject] ?? ''), summary: kind.summary(score) } : null;
}
