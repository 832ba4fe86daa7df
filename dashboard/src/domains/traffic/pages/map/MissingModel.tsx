import type { Stats } from '../../../../api/types';
import { Warning } from '../../../../components/Warning';
import { useApi } from '../../../../hooks/useApi';
import type { CellTraffic, MinutesAhead } from '../../map/cells';
import { explainMissing, isPredictionMissing } from './missingPredictions';

interface MissingModelProps {
  cells: CellTraffic[];
  minutesAhead: MinutesAhead;
}

/** Explains why a prediction has no colours. */
export function MissingModel(props: MissingModelProps) {
  return isPredictionMissing(props.cells, props.minutesAhead) ? <Explanation {...props} /> : null;
}

function Explanation({ cells, minutesAhead }: MissingModelProps) {
  const { data, error } = useApi<Stats>('/api/stats', 2);
  // Without the first answer it is not known whether a history is being made.
  return <Warning role="status">{(data || error) && explainMissing(cells, minutesAhead, data?.history)}</Warning>;
}
