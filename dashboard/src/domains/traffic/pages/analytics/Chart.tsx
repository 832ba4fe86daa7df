import { useMemo } from 'preact/hooks';
import { formatNumber } from '../../../../format';
import { alignSeries, type SeriesColumn, type SeriesResponse } from './series';
import { useChart } from './useChart';

interface ChartProps {
  title: string;
  unit: string;
  column: SeriesColumn;
  series: SeriesResponse;
  timezone: string;
}

/** One column of the series as a line, beside the week before. */
export function Chart({ title, unit, column, series, timezone }: ChartProps) {
  const data = useMemo(() => alignSeries(series, column), [series, column]);
  const container = useChart(data, unit, timezone);
  const summary = describe(title, unit, series, column);
  return (
    <figure>
      <figcaption>{summary}</figcaption>
      <div ref={container} role="img" aria-label={summary} />
    </figure>
  );
}

function describe(title: string, unit: string, { rows }: SeriesResponse, column: SeriesColumn): string {
  const values = rows.map((row) => row[column]).filter((value): value is number => value !== null);
  if (values.length === 0) return title;
  const [low, high, last] = [Math.min(...values), Math.max(...values), values.at(-1)].map((v) => formatNumber(v, 1));
  return `${title}: from ${low} to ${high}${unit && ` ${unit}`}, last ${last}.`;
}
