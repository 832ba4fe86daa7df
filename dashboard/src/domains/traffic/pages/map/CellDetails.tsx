import { formatNumber } from '../../../../format';
import { predictionText } from './predictionText';
import type { CellResponse } from './types';

interface CellDetailsProps {
  cell: string;
  /** Null while they are loaded. */
  details: CellResponse | null;
  onClose: () => void;
}

/** The traffic of the selected cell, and what the models predict for it. */
export function CellDetails({ cell, details, onClose }: CellDetailsProps) {
  return (
    <section aria-label="Selected cell" aria-live="polite">
      <h2>
        Cell <code>{cell}</code>
        <button type="button" class="link" onClick={onClose} aria-label="Close the cell">
          ×
        </button>
      </h2>
      {details?.now && (
        <p>
          {details.now.vehicle_count} vehicles, {formatNumber(details.now.speed_mean, 1)} km/h
        </p>
      )}
      <ul class="plain">
        {details?.predictions.map((prediction) => (
          <li key={prediction.model}>
            <b>{prediction.model}</b> {predictionText(prediction)}
          </li>
        ))}
      </ul>
    </section>
  );
}
