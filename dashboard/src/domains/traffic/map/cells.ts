// Traffic of H3 cells, from the live layer `cells`.

import type { LiveState } from '../../../live/LiveState';
import { congestionLevel, type Level } from './colours';

export interface CellTraffic {
  /** The H3 cell's id. */
  cell: string;
  vehicles: number;
  /** Mean speed in km/h; null if it is unknown. */
  speed: number | null;
  level: Level | null;
}

export const MINUTES_AHEAD = [0, 5, 10, 15] as const;
export type MinutesAhead = (typeof MINUTES_AHEAD)[number];

/** The live cells now, or with the speed that a model predicts for some minutes ahead. */
export function liveCells(state: LiveState, minutesAhead: MinutesAhead): CellTraffic[] {
  const column = minutesAhead === 0 ? 'speed_mean' : `speed_${minutesAhead}`;
  return state.rows('cells').map((row) => {
    const speed = (state.value('cells', row, column) ?? null) as number | null;
    const vehicles = (state.value('cells', row, 'vehicle_count') ?? 0) as number;
    return { cell: row[0], vehicles, speed, level: congestionLevel(speed) };
  });
}
