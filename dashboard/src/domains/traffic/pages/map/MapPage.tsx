import { useEffect, useState } from 'preact/hooks';
import type { Config } from '../../../../api/types';
import { Warning } from '../../../../components/Warning';
import { useTitle } from '../../../../hooks/useTitle';
import { live } from '../../../../live/LiveConnection';
import type { MinutesAhead } from '../../map/cells';
import { DELAY_MS } from '../../map/motion';
import { CellDetails } from './CellDetails';
import { ExportSection } from './ExportSection';
import { Hotspots } from './Hotspots';
import { Legend } from './Legend';
import { MissingModel } from './MissingModel';
import { PlaybackBar } from './PlaybackBar';
import { TimeButtons } from './TimeButtons';
import { useCellDetails } from './useCellDetails';
import { useCells } from './useCells';
import { useCityMap } from './useCityMap';
import { useHotspots } from './useHotspots';
import { useLiveMotion } from './useLiveMotion';
import { usePlayback } from './usePlayback';
import { VehicleToggle } from './VehicleToggle';

export function MapPage({ config }: { config: Config }) {
  useTitle('Map');
  const [minutesAhead, setMinutesAhead] = useState<MinutesAhead>(0);
  const [vehicles, setVehicles] = useState(true);
  const [selected, setSelected] = useState<string | null>(null);
  const [error, setError] = useState('');
  const hotspots = useHotspots();
  const details = useCellDetails(selected, setError);
  const liveMotion = useLiveMotion();
  const { mode, playback, start, stop } = usePlayback(setError);
  const motion = playback?.motion ?? liveMotion;
  const cells = useCells(playback, minutesAhead, setError);
  const { container, show } = useCityMap({
    style: config.map_style,
    motionFrame: () => ({ motion, at: playback?.at ?? Date.now() - live.data.skew - DELAY_MS }),
    onSelect: setSelected,
    onError: setError,
  });
  useEffect(() => show({ cells, vehicles, hotspots: hotspots.map(({ cell }) => cell), selected }));

  return (
    <div class="map-page">
      <div
        ref={container}
        class="map"
        role="application"
        aria-label="Map of the city's traffic. Arrow keys move it, plus and minus zoom, shift with arrow keys turns it."
        data-mode={mode}
      />
      <aside class="panel" aria-label="What the map shows">
        <TimeButtons selected={minutesAhead} onSelect={setMinutesAhead} disabled={mode !== 'live'} />
        <VehicleToggle checked={vehicles} onChange={setVehicles} count={motion.size} />
        <Legend cells={cells} />
        <MissingModel cells={cells} minutesAhead={mode === 'live' ? minutesAhead : 0} />
        <Warning role="alert">{error}</Warning>
        <Hotspots hotspots={hotspots} onSelect={setSelected} />
        {selected && <CellDetails cell={selected} details={details} onClose={() => setSelected(null)} />}
        <ExportSection onError={setError} />
      </aside>
      <PlaybackBar mode={mode} playback={playback} onStart={start} onStop={stop} timezone={config.timezone} />
    </div>
  );
}
