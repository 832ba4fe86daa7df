import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Config } from '../api';
import { clock, figure, moment, useApi, useTitle } from '../hooks';
import { Table } from './Operations';

interface Series {
  columns: string[];
  rows: [number, number | null, number | null][];
  week_before: [number, number | null, number | null][];
}

const RANGES = [6, 24, 48, 168];

export function Analytics({ config }: { config: Config }) {
  useTitle('Analytics');
  const [hours, setHours] = useState(24);
  const [asTable, setAsTable] = useState(false);
  const { data, error } = useApi<Series>(`/api/series?hours=${hours}`, 30);
  return (
    <main id="main" class="page">
      <h1>Analytics</h1>
      <div class="row" role="group" aria-label="Time shown">
        {RANGES.map((range) => (
          <button key={range} type="button" aria-pressed={hours === range} onClick={() => setHours(range)}>
            {range < 72 ? `${range} hours` : `${range / 24} days`}
          </button>
        ))}
        <label class="check">
          <input type="checkbox" checked={asTable} onChange={() => setAsTable(!asTable)} /> as a table
        </label>
      </div>
      {error && (
        <p class="warn" role="alert">
          {error}
        </p>
      )}
      {data && data.rows.length === 0 && <p class="note">Nothing was recorded in that time yet.</p>}
      {data && data.rows.length > 0 && (
        <>
          <p>
            {data.week_before.length > 0
              ? 'The dashed line is the week before.'
              : 'There is nothing of the week before yet to compare with.'}
          </p>
          {asTable ? (
            <Table head={['time', 'mean speed, km/h', 'vehicles']} numbers={['mean speed, km/h', 'vehicles']}>
              {data.rows.filter(([, speed]) => speed !== null).map(([t, speed, vehicles]) => (
                <tr key={t}>
                  <th scope="row">{moment(t, config.timezone)}</th>
                  <td class="n">{figure(speed, 1)}</td>
                  <td class="n">{figure(vehicles)}</td>
                </tr>
              ))}
            </Table>
          ) : (
            <>
              <Chart title="Mean speed" unit="km/h" column={1} data={data} timezone={config.timezone} />
              <Chart title="Vehicles in the cells, in two minutes" unit="" column={2} data={data} timezone={config.timezone} />
            </>
          )}
        </>
      )}
    </main>
  );
}

function Chart(props: { title: string; unit: string; column: 1 | 2; data: Series; timezone: string }) {
  const { title, unit, column, data, timezone } = props;
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const { current } = place;
    if (!current) return;
    const times = [...new Set([...data.rows, ...data.week_before].map(([t]) => t))].sort((a, b) => a - b);
    const of = (rows: Series['rows']) => {
      // A time that only the other line has is no gap in this one; a null is.
      const by = new Map(rows.map((row) => [row[0], row[column]]));
      return times.map((t) => by.get(t));
    };
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue('--ink');
    const grid = { stroke: style.getPropertyValue('--line'), width: 1 };
    const chart = new uPlot(
      {
        width: current.clientWidth,
        height: 260,
        series: [
          { value: (_, t) => (t ? clock(t * 1000, timezone) : '') },
          { label: 'now', stroke: style.getPropertyValue('--accent'), width: 2 },
          { label: 'the week before', stroke: ink, dash: [6, 6], width: 1.5 },
        ],
        axes: [
          { stroke: ink, grid, values: (_, ticks) => ticks.map((t) => clock(t * 1000, timezone)) },
          { stroke: ink, grid, label: unit },
        ],
      },
      [times.map((t) => t / 1000), of(data.rows), of(data.week_before)] as uPlot.AlignedData,
      current,
    );
    const resize = new ResizeObserver(() => chart.setSize({ width: current.clientWidth, height: 260 }));
    resize.observe(current);
    return () => {
      resize.disconnect();
      chart.destroy();
    };
  }, [data, column, timezone, unit]);
  const values = data.rows.map((row) => row[column]).filter((v): v is number => v !== null);
  const said = values.length
    ? `${title}: from ${figure(Math.min(...values), 1)} to ${figure(Math.max(...values), 1)}${unit && ` ${unit}`}, last ${figure(values.at(-1), 1)}.`
    : title;
  return (
    <figure>
      <figcaption>{said}</figcaption>
      <div ref={place} role="img" aria-label={said} />
    </figure>
  );
}
