import { useState } from 'preact/hooks';
import type { Config } from '../../../../api/types';
import { Warning } from '../../../../components/Warning';
import { useApi } from '../../../../hooks/useApi';
import { useTitle } from '../../../../hooks/useTitle';
import { Chart } from './Chart';
import type { SeriesResponse } from './series';
import { SeriesTable } from './SeriesTable';

const RANGES_HOURS = [6, 24, 48, 168];

const rangeName = (hours: number) => (hours < 72 ? `${hours} hours` : `${hours / 24} days`);

export function AnalyticsPage({ config: { timezone } }: { config: Config }) {
  useTitle('Analytics');
  const [hours, setHours] = useState(24);
  const [asTable, setAsTable] = useState(false);
  const { data, error } = useApi<SeriesResponse>(`/api/series?hours=${hours}`, 30);
  return (
    <main id="main" class="page">
      <h1>Analytics</h1>
      <div class="row" role="group" aria-label="Time shown">
        {RANGES_HOURS.map((range) => (
          <button key={range} type="button" aria-pressed={hours === range} onClick={() => setHours(range)}>
            {rangeName(range)}
          </button>
        ))}
        <label class="check">
          <input type="checkbox" checked={asTable} onChange={() => setAsTable(!asTable)} /> as a table
        </label>
      </div>
      <Warning role="alert">{error}</Warning>
      {data && data.rows.length === 0 && <p class="note">No traffic was recorded in that time yet.</p>}
      {data && data.rows.length > 0 && <Series data={data} asTable={asTable} timezone={timezone} />}
    </main>
  );
}

function Series({ data, asTable, timezone }: { data: SeriesResponse; asTable: boolean; timezone: string }) {
  return (
    <>
      <p>
        {data.week_before.length > 0
          ? 'The dashed line is the week before.'
          : 'There is no data of the week before to compare with yet.'}
      </p>
      {asTable ? (
        <SeriesTable rows={data.rows} timezone={timezone} />
      ) : (
        <>
          <Chart title="Mean speed" unit="km/h" column={1} series={data} timezone={timezone} />
          <Chart title="Vehicles in all cells, per two minutes" unit="" column={2} series={data} timezone={timezone} />
        </>
      )}
    </>
  );
}
