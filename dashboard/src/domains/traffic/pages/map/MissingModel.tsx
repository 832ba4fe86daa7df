import { Warning } from '../../../../components/Warning';
import type { CellTraffic, MinutesAhead } from '../../map/cells';

interface MissingModelProps {
  cells: CellTraffic[];
  minutesAhead: MinutesAhead;
}

/** Explains why a prediction has no colours. */
export function MissingModel({ cells, minutesAhead }: MissingModelProps) {
  if (minutesAhead === 0 || cells.length === 0 || cells.some(({ speed }) => speed !== null)) return null;
  return (
    <Warning role="status">
      No model predicts the traffic in {minutesAhead} minutes yet. A model is trained when there is enough data, some
      hours after the first start.
    </Warning>
  );
}
