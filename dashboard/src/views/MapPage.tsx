import { useEffect, useRef, useState } from 'preact/hooks';
import { type Config, download, get } from '../api';
import { clock, figure, useTitle } from '../hooks';
import { live } from '../live';
import { type Cell, CityMap } from '../map/CityMap';
import { css, level, type Level, LEVEL_NAMES, LEVELS, speedColour, thresholds, UNKNOWN } from '../map/colours';
import { DELAY_MS, Motion } from '../map/motion';
import { Playback } from '../map/playback';

type Ahead = 0 | 5 | 10 | 15;
const AHEAD: Ahead[] = [0, 5, 10, 15];
const SPEEDS = [1, 10, 30, 60];

interface Hotspot {
  cell: string;
  vehicle_count: number;
  speed_mean: number;
  lost: number;
}

interface CellAnswer {
  cell: string;
  now: { vehicle_count: number; speed_mean: number } | null;
  predictions: {
    model: string;
    means: string;
    version: number | null;
    prediction?: string;
    low?: number | null;
    high?: number | null;
    confidence?: number | null;
  }[];
}

declare global {
  interface Window {
    /** For tests: what is drawn. */
    city?: { frames: () => number; where: (id: string) => [number, number] | null; vehicles: () => string[] };
  }
}

/** The live rows as cells, now or some minutes ahead. */
function liveCells(ahead: Ahead): Cell[] {
  const rows = live.layers.get('cells');
  if (!rows) return [];
  const column = ahead === 0 ? 'speed_mean' : `speed_${ahead}`;
  return [...rows.values()].map((row) => {
    const speed = (live.value('cells', row, column) ?? null) as number | null;
    const vehicles = (live.value('cells', row, 'vehicle_count') ?? 0) as number;
    return { cell: row[0] as string, vehicles, speed, level: level(speed) };
  });
}

export function MapPage({ config }: { config: Config }) {
  useTitle('Map');
  const container = useRef<HTMLDivElement>(null);
  const map = useRef<CityMap | null>(null);
  const motion = useRef(new Motion());
  const playback = useRef<Playback | null>(null);
  const [ahead, setAhead] = useState<Ahead>(0);
  const [vehicles, setVehicles] = useState(true);
  const [playing, setPlaying] = useState<'live' | 'loading' | 'history'>('live');
  const [hotspots, setHotspots] = useState<Hotspot[]>([]);
  const [selected, setSelected] = useState<string | null>(null);
  const [cell, setCell] = useState<CellAnswer | null>(null);
  const [problem, setProblem] = useState('');
  const [cells, setCells] = useState<Cell[]>([]);
  const [, setTurn] = useState(0);

  useEffect(() => {
    const { current: held } = container;
    if (!held) return;
    const tracks = motion.current;
    let drawn: CityMap;
    try {
      const at = () => playback.current?.at ?? Date.now() - live.skew - DELAY_MS;
      drawn = new CityMap(held, config.map_style, tracks, at, setSelected);
    } catch (error) {
      setProblem(`This browser cannot draw the map (${String(error)}): WebGL 2 is needed. The figures are beside it.`);
      return;
    }
    map.current = drawn;
    const take = (changed: Record<string, { rows: unknown[][]; gone?: string[] }>, whole: boolean) => {
      if (playback.current) return;
      const layer = changed.vehicles;
      if (whole) tracks.clear();
      for (const row of layer?.rows ?? []) {
        const [id, t, lon, lat, speed] = row as [string, number, number, number, number];
        tracks.report(id, t, lon, lat, speed);
      }
      tracks.forget(layer?.gone ?? []);
    };
    take({ vehicles: { rows: [...(live.layers.get('vehicles')?.values() ?? [])] } }, true);
    const off = live.onChange(take);
    window.city = {
      frames: () => drawn.frames,
      where: (id) => tracks.where(id),
      vehicles: () => tracks.ids,
    };
    get<{ thresholds_kmh: { high_below: number; medium_below: number } }>('/api/current-traffic')
      .then(({ thresholds_kmh: known }) => {
        thresholds.high = known.high_below;
        thresholds.medium = known.medium_below;
      })
      .catch(() => undefined);
    return () => {
      off();
      delete window.city;
      playback.current?.stop();
      playback.current = null;
      drawn.remove();
      map.current = null;
    };
  }, [config.map_style]);

  // What is drawn of cells follows the live rows, or the clock of playback, twice a second.
  useEffect(() => {
    const tick = () => {
      const past = playback.current;
      const shown = past ? past.tick() : liveCells(ahead);
      setCells(shown);
      map.current?.show({ cells: shown, vehicles, hotspots: hotspots.map((h) => h.cell), selected });
      if (past) {
        setProblem(past.error);
        setTurn((held) => held + 1);
      }
    };
    tick();
    const timer = window.setInterval(tick, playing === 'history' ? 100 : 500);
    return () => window.clearInterval(timer);
  }, [ahead, vehicles, hotspots, selected, playing]);

  useEffect(() => {
    const ask = () =>
      get<{ hotspots: Hotspot[] }>('/api/hotspots?count=8')
        .then((found) => setHotspots(found.hotspots))
        .catch(() => undefined);
    void ask();
    const timer = window.setInterval(ask, 5_000);
    return () => window.clearInterval(timer);
  }, []);

  useEffect(() => {
    setCell(null);
    if (!selected) return;
    const over = new AbortController();
    get<CellAnswer>(`/api/cell/${selected}`, over.signal)
      .then(setCell)
      .catch((error: unknown) => over.signal.aborted || setProblem(String((error as Error).message)));
    return () => over.abort();
  }, [selected]);

  const enterHistory = async (hours: number) => {
    playback.current?.stop();
    const end = Math.floor(Date.now() - live.skew) - 3_000;
    const past = new Playback(end - hours * 3_600_000, end, motion.current);
    setPlaying('loading');
    setProblem('');
    try {
      await past.load();
    } catch (error) {
      setPlaying('live');
      setProblem(String((error as Error).message));
      return;
    }
    if (past.empty) {
      setPlaying('live');
      setProblem('Nothing was recorded in that time yet.');
      return;
    }
    const first = past.frame();
    if (first && first > past.at) past.seek(first);
    playback.current = past;
    setPlaying('history');
  };

  const leaveHistory = () => {
    playback.current?.stop();
    playback.current = null;
    motion.current.clear();
    for (const row of live.layers.get('vehicles')?.values() ?? []) {
      const [id, t, lon, lat, speed] = row as [string, number, number, number, number];
      motion.current.report(id, t, lon, lat, speed);
    }
    setProblem('');
    setPlaying('live');
  };

  const past = playback.current;
  const known = cells.filter((c) => c.speed !== null);
  const counts = (['low', 'medium', 'high'] as Level[]).map((name) => known.filter((c) => c.level === name).length);
  const noModel = ahead !== 0 && cells.length > 0 && known.length === 0;

  const save = async () => {
    try {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(await download('/api/export/kepler'));
      link.download = 'city.kepler.json';
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      setProblem(String((error as Error).message));
    }
  };

  return (
    <div class="map-page">
      <div
        ref={container}
        class="map"
        role="application"
        aria-label="Map of the city's traffic. Arrow keys move it, plus and minus zoom, shift with arrow keys turns it."
        data-mode={playing}
      />
      <aside class="panel" aria-label="What the map shows">
        <div class="row" role="group" aria-label="Time shown">
          {AHEAD.map((minutes) => (
            <button
              key={minutes}
              type="button"
              aria-pressed={ahead === minutes}
              disabled={playing !== 'live'}
              onClick={() => setAhead(minutes)}
            >
              {minutes === 0 ? 'Now' : `+${minutes} min`}
            </button>
          ))}
        </div>
        <label class="check">
          <input type="checkbox" checked={vehicles} onChange={() => setVehicles(!vehicles)} /> Vehicles (
          {figure(motion.current.size)})
        </label>
        <ul class="legend" aria-label="Legend">
          {(['low', 'medium', 'high'] as Level[]).map((name, place) => (
            <li key={name}>
              <i style={{ background: css(LEVELS[name]) }} />
              {LEVEL_NAMES[name]}: {counts[place]} cells
            </li>
          ))}
          <li>
            <i style={{ background: css(UNKNOWN) }} />
            not known: {cells.length - known.length}
          </li>
          <li class="scale" aria-label="Colour of vehicles by speed, 0 to 60 kilometres an hour">
            <span>0</span>
            <i
              class="ramp"
              style={{
                background: `linear-gradient(90deg, ${[0, 12, 24, 36, 48, 60].map((v) => css(speedColour(v))).join()})`,
              }}
            />
            <span>60 km/h</span>
          </li>
        </ul>
        <p class="note">Height: vehicles in a cell. Colour: their mean speed.</p>
        {noModel && (
          <p class="warn" role="status">
            No model says yet how fast it will be in {ahead} minutes: one is trained when there is enough traffic to learn
            from, some hours after the first start.
          </p>
        )}
        {problem && (
          <p class="warn" role="alert">
            {problem}
          </p>
        )}
        <h2>Hotspots</h2>
        {hotspots.length === 0 ? (
          <p class="note">None now: traffic moves freely.</p>
        ) : (
          <ol class="hotspots">
            {hotspots.map((spot) => (
              <li key={spot.cell}>
                <button type="button" class="link" onClick={() => setSelected(spot.cell)}>
                  {spot.vehicle_count} vehicles at {figure(spot.speed_mean, 1)} km/h
                </button>
              </li>
            ))}
          </ol>
        )}
        {selected && (
          <section aria-label="The chosen cell" aria-live="polite">
            <h2>
              Cell <code>{selected}</code>
              <button type="button" class="link" onClick={() => setSelected(null)} aria-label="Close the cell">
                ×
              </button>
            </h2>
            {cell?.now && (
              <p>
                {cell.now.vehicle_count} vehicles, {figure(cell.now.speed_mean, 1)} km/h
              </p>
            )}
            <ul class="plain">
              {cell?.predictions.map((said) => (
                <li key={said.model}>
                  <b>{said.model}</b>{' '}
                  {said.version === null
                    ? 'has no champion yet'
                    : said.prediction === undefined
                      ? 'says nothing: the features are too old'
                      : said.low !== null && said.low !== undefined
                        ? `${said.prediction} (${figure(said.low, 1)} to ${figure(said.high, 1)}), version ${said.version}`
                        : `${said.prediction} (${figure((said.confidence ?? 0) * 100)} %), version ${said.version}`}
                </li>
              ))}
            </ul>
          </section>
        )}
        <h2>Export</h2>
        <button type="button" onClick={save}>
          Open in Kepler.gl
        </button>
        <p class="note">
          Saves data and map settings; drop the file on <a href="https://kepler.gl/demo">kepler.gl</a>.
        </p>
      </aside>
      <div class="playback" role="group" aria-label="Playback">
        {past === null ? (
          <>
            <span class="badge live">live</span>
            {[1, 6, 24].map((hours) => (
              <button key={hours} type="button" disabled={playing === 'loading'} onClick={() => enterHistory(hours)}>
                Last {hours === 1 ? 'hour' : `${hours} h`}
              </button>
            ))}
            {playing === 'loading' && <span role="status">loading…</span>}
          </>
        ) : (
          <>
            <button
              type="button"
              onClick={() => {
                past.playing = !past.playing;
                setTurn((held) => held + 1);
              }}
            >
              {past.playing ? 'Pause' : 'Play'}
            </button>
            <input
              type="range"
              aria-label="Time"
              aria-valuetext={clock(past.at, config.timezone, true)}
              min={past.start}
              max={past.end}
              step={1000}
              value={past.at}
              onInput={(event) => past.seek(Number(event.currentTarget.value))}
            />
            <output>{clock(past.at, config.timezone, true)}</output>
            <select
              aria-label="Speed"
              value={past.speed}
              onChange={(event) => {
                past.speed = Number(event.currentTarget.value);
              }}
            >
              {SPEEDS.map((speed) => (
                <option key={speed} value={speed}>
                  {speed}×
                </option>
              ))}
            </select>
            <button type="button" onClick={leaveHistory}>
              Back to live
            </button>
          </>
        )}
      </div>
    </div>
  );
}
