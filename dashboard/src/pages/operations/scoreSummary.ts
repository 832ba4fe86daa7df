// What a score of a single event means to an operator. The domains declare their kinds of scores.

import { domains } from '../../domains';
import type { Score } from '../../live/messages';

const KINDS = domains.flatMap(({ scoreKinds }) => scoreKinds ?? []);

export interface ScoreSummary {
  subject: string;
  summary: string;
}

/** A score as texts; null for a score that needs no attention. */
export function summarizeScore(score: Score): ScoreSummary | null {
  const kind = KINDS.find(({ isNotable }) => isNotable(score));
  return kind ? { subject: String(score[kind.subject] ?? ''), summary: kind.summary(score) } : null;
}
