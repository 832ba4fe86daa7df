import { formatNumber } from '../../../../format';
import type { Hotspot } from './types';

interface HotspotsProps {
  hotspots: Hotspot[];
  onSelect: (cell: string) => void;
}

export function Hotspots({ hotspots, onSelect }: HotspotsProps) {
  return (
    <>
      <h2>Hotspots</h2>
      {hotspots.length === 0 ? (
        <p class="note">There are none: traffic moves freely.</p>
      ) : (
        <ol class="hotspots">
          {hotspots.map(({ cell, vehicle_count: vehicles, speed_mean: speed }) => (
            <li key={cell}>
              <button type="button" class="link" onClick={() => onSelect(cell)}>
                {vehicles} vehicles at {formatNumber(speed, 1)} km/h
              </button>
            </li>
          ))}
        </ol>
      )}
    </>
  );
}
