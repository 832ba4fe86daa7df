import type { HistoryStatus } from '../../../../api/generated';
import { isBeingMade } from '../../../../components/historyText';
import type { CellTraffic, MinutesAhead } from '../../map/cells';

/** Whether a prediction is selected and no cell has one. */
export const isPredictionMissing = (cells: CellTraffic[], minutesAhead: MinutesAhead): boolean =>
  minutesAhead !== 0 && cells.every(({ speed }) => speed === null);

/**
 * Explains why the map has no predictions, and what comes. It is empty while there is nothing to explain: without a
 * history, a city without cells has no traffic to predict.
 */
export function explainMissing(
  cells: CellTraffic[],
  minutesAhead: MinutesAhead,
  history: HistoryStatus | null | undefined,
): string {
  if (!isPredictionMissing(cells, minutesAhead)) return '';
  const missing = `No model predicts the traffic in ${minutesAhead} minutes yet.`;
  if (isBeingMade(history)) {
    return `${missing} Models are trained on the history of the city. Predictions come when it is made: ${history.percent} %.`;
  }
  if (cells.length === 0) return '';
  return `${missing} A model is trained when there is enough data, some hours after the first start.`;
}
