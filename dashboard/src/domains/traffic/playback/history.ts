// Past traffic from the server: windows of cells, and positions of vehicles.

import { get } from '../../../api/client';
import type { PositionsResponse, WindowsResponse } from '../../../api/generated';
import type { CellTraffic } from '../map/cells';
import { congestionLevel } from '../map/colours';

export interface VehicleReport {
  id: string;
  /** Milliseconds since the epoch. */
  t: number;
  lon: number;
  lat: number;
  /** km/h; null if it is unknown. */
  speed: number | null;
}

/** The cells of each window, by the window's start (ms since the epoch). */
export type CellWindows = Map<number, CellTraffic[]>;

/** Where playback gets its data from. Times are ms since the epoch; `end` is excluded. */
export interface HistorySource {
  cellWindows(start: number, end: number, signal: AbortSignal): Promise<CellWindows>;
  vehicleReports(start: number, end: number, signal: AbortSignal): Promise<VehicleReport[]>;
}

/** Longer ranges are read in windows of ten minutes instead of two. */
const LONG_RANGE_MS = 3 * 3_600_000;

type CellRow = WindowsResponse['rows'][number];

export const serverHistory: HistorySource = {
  async cellWindows(start, end, signal) {
    const resolution = end - start > LONG_RANGE_MS ? 10 : 2;
    const path = `/api/historical?${range(start, end)}&resolution=${resolution}`;
    return groupByWindow((await get<WindowsResponse>(path, signal)).rows);
  },
  async vehicleReports(start, end, signal) {
    const { rows } = await get<PositionsResponse>(`/api/historical/vehicles?${range(start, end)}`, signal);
    return rows.map(([t, id, lon, lat, speed]) => ({ t, id, lon, lat, speed }));
  },
};

export function groupByWindow(rows: CellRow[]): CellWindows {
  const windows: CellWindows = new Map();
  for (const [t, cell, vehicles, speed] of rows) {
    const traffic = { cell, vehicles, speed, level: congestionLevel(speed) };
    const window = windows.get(t);
    if (window) window.push(traffic);
    else windows.set(t, [traffic]);
  }
  return windows;
}

const range = (start: number, end: number) =>
  `start=${new Date(start).toISOString()}&end=${new Date(end).toISOString()}`;
