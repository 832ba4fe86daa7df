import { useEffect, useState } from 'preact/hooks';
import { useInterval } from '../../../../hooks/useInterval';
import { live } from '../../../../live/LiveConnection';
import { type CellTraffic, liveCells, type MinutesAhead } from '../../map/cells';
import type { Playback } from '../../playback/Playback';

const LIVE_MS = 500;
const PLAYBACK_MS = 100;

/**
 * The cells to draw: the live ones, or those of the playback's time, whose clock this advances. `onPlaybackError` gets
 * the playback's error, or an empty text, at each step.
 */
export function useCells(
  playback: Playback | null,
  minutesAhead: MinutesAhead,
  onPlaybackError: (message: string) => void,
): CellTraffic[] {
  const [cells, setCells] = useState<CellTraffic[]>([]);
  const update = () => {
    if (!playback) {
      setCells(liveCells(live.data, minutesAhead));
      return;
    }
    // A new array at each step draws the clock of the playback bar, too.
    setCells([...playback.tick()]);
    onPlaybackError(playback.error);
  };
  useEffect(update, [playback, minutesAhead]);
  useInterval(update, playback ? PLAYBACK_MS : LIVE_MS);
  return cells;
}
