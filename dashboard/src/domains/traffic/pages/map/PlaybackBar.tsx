import { useState } from 'preact/hooks';
import { formatTime } from '../../../../format';
import type { Playback } from '../../playback/Playback';
import type { MapMode } from './usePlayback';

interface PlaybackBarProps {
  mode: MapMode;
  playback: Playback | null;
  onStart: (hours: number) => void;
  onStop: () => void;
  timezone: string;
}

const HOURS = [1, 6, 24];
const SPEEDS = [1, 10, 30, 60];

/** Starts playback, or controls the one that runs. */
export function PlaybackBar({ mode, playback, onStart, onStop, timezone }: PlaybackBarProps) {
  return (
    <div class="playback" role="group" aria-label="Playback">
      {playback ? (
        <PlaybackControls playback={playback} onStop={onStop} timezone={timezone} />
      ) : (
        <>
          <span class="badge live">live</span>
          {HOURS.map((hours) => (
            <button key={hours} type="button" disabled={mode === 'loading'} onClick={() => onStart(hours)}>
              Last {hours === 1 ? 'hour' : `${hours} h`}
            </button>
          ))}
          {mode === 'loading' && <span role="status">loading…</span>}
        </>
      )}
    </div>
  );
}

interface PlaybackControlsProps {
  playback: Playback;
  onStop: () => void;
  timezone: string;
}

function PlaybackControls({ playback, onStop, timezone }: PlaybackControlsProps) {
  const [, setChanges] = useState(0);
  const time = formatTime(playback.at, timezone, true);
  const togglePlaying = () => {
    playback.playing = !playback.playing;
    setChanges((count) => count + 1);
  };
  return (
    <>
      <button type="button" onClick={togglePlaying}>
        {playback.playing ? 'Pause' : 'Play'}
      </button>
      <input
        type="range"
        aria-label="Time"
        aria-valuetext={time}
        min={playback.start}
        max={playback.end}
        step={1000}
        value={playback.at}
        onInput={(event) => playback.seek(Number(event.currentTarget.value))}
      />
      <output>{time}</output>
      <select
        aria-label="Speed"
        value={playback.speed}
        onChange={(event) => {
          playback.speed = Number(event.currentTarget.value);
        }}
      >
        {SPEEDS.map((speed) => (
          <option key={speed} value={speed}>
            {speed}×
          </option>
        ))}
      </select>
      <button type="button" onClick={onStop}>
        Back to live
      </button>
    </>
  );
}
