import { useEffect, useRef, useState } from 'preact/hooks';
import { errorMessage } from '../../../../api/client';
import { live } from '../../../../live/LiveConnection';
import { serverHistory } from '../../playback/history';
import { Playback } from '../../playback/Playback';

export type MapMode = 'live' | 'loading' | 'history';

export interface PlaybackControl {
  mode: MapMode;
  /** What is played; null while the map is live. */
  playback: Playback | null;
  start: (hours: number) => Promise<void>;
  stop: () => void;
}

/** The newest positions may not be in the database yet. */
const MARGIN_MS = 3_000;

/** Playback of the last hours. The map stays live while the history loads. */
export function usePlayback(onError: (message: string) => void): PlaybackControl {
  const [mode, setMode] = useState<MapMode>('live');
  const current = useRef<Playback | null>(null);
  useEffect(() => () => current.current?.stop(), []);

  const stop = () => {
    current.current?.stop();
    current.current = null;
    onError('');
    setMode('live');
  };

  const start = async (hours: number) => {
    stop();
    const end = Math.floor(Date.now() - live.data.skew) - MARGIN_MS;
    const playback = new Playback(end - hours * 3_600_000, end, serverHistory);
    current.current = playback;
    setMode('loading');
    const error = await playback.load().then(
      () => (playback.isEmpty ? 'No traffic was recorded in that time yet.' : ''),
      errorMessage,
    );
    if (playback.isStopped) return;
    if (error) {
      stop();
      onError(error);
    } else setMode('history');
  };

  return { mode, playback: mode === 'history' ? current.current : null, start, stop };
}
