import { formatNumber } from '../../../../format';
import type { CellPrediction } from './types';

/** A prediction with its interval (regression) or its confidence (classification), or why there is none. */
export function predictionText({ version, prediction, low, high, confidence }: Omit<CellPrediction, 'means'>): string {
  if (version === null) return 'has no champion yet';
  if (prediction === undefined) return 'gives no prediction: its features are too old';
  const certainty =
    low === null || low === undefined
      ? `${formatNumber((confidence ?? 0) * 100)} %`
      : `${formatNumber(low, 1)} to ${formatNumber(high, 1)}`;
  return `${prediction} (${certainty}), version ${version}`;
}
