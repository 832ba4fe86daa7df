// The city's traffic over time, as the server sends it and as the chart draws it.

import type { SeriesResponse } from '../../../../api/generated';

export type { SeriesResponse } from '../../../../api/generated';

/** The start of an interval (ms since the epoch), the mean speed (km/h), and the number of vehicles. */
export type SeriesRow = SeriesResponse['rows'][number];

/** The index of a value in a row. */
export type SeriesColumn = 1 | 2;

export interface ChartData {
  /** Seconds since the epoch, ascending. */
  times: number[];
  /** The values at these times. Null is a gap in the line; undefined is not, since only the other line has the time. */
  current: (number | null | undefined)[];
  weekBefore: (number | null | undefined)[];
}

/** Puts both lines on one time axis. */
export function alignSeries(
  { rows, week_before: weekBefore }: Pick<SeriesResponse, 'rows' | 'week_before'>,
  column: SeriesColumn,
): ChartData {
  const times = [...new Set([...rows, ...weekBefore].map(([t]) => t))].sort((a, b) => a - b);
  const align = (line: SeriesRow[]) => {
    const values = new Map(line.map((row) => [row[0], row[column]]));
    return times.map((t) => values.get(t));
  };
  return { times: times.map((t) => t / 1000), current: align(rows), weekBefore: align(weekBefore) };
}
