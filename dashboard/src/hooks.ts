import { useEffect, useState } from 'preact/hooks';
import { get } from './api';
import { live } from './live';

export interface Asked<T> {
  data: T | null;
  error: string;
  again: () => void;
}

/** Asks the server, and again every so many seconds; what was known stays while it does not answer. */
export function useApi<T>(path: string, everySeconds: number): Asked<T> {
  const [data, setData] = useState<T | null>(null);
  const [error, setError] = useState('');
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const over = new AbortController();
    let timer = 0;
    const ask = async () => {
      try {
        setData(await get<T>(path, over.signal));
        setError('');
      } catch (problem) {
        if (over.signal.aborted) return;
        setError(problem instanceof Error ? problem.message : String(problem));
      }
      timer = window.setTimeout(ask, everySeconds * 1000);
    };
    void ask();
    return () => {
      over.abort();
      window.clearTimeout(timer);
    };
  }, [path, everySeconds, turn]);
  return { data, error, again: () => setTurn((held) => held + 1) };
}

/** Draws again when the live connection changes its state. */
export function useLiveState(): { state: string; why: string } {
  const [, setTurn] = useState(0);
  useEffect(() => live.onState(() => setTurn((held) => held + 1)), []);
  return { state: live.state, why: live.why };
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · City`;
  }, [title]);
}

export const figure = (value: number | null | undefined, digits = 0): string =>
  value === null || value === undefined || Number.isNaN(value)
    ? '–'
    : value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: 0 });

export const clock = (ms: number, timezone: string, seconds = false): string =>
  new Intl.DateTimeFormat('en-GB', {
    timeZone: timezone,
    hour: '2-digit',
    minute: '2-digit',
    ...(seconds ? { second: '2-digit' } : {}),
  }).format(ms);

export const moment = (value: string | number, timezone: string): string =>
  new Intl.DateTimeFormat('en-GB', { timeZone: timezone, dateStyle: 'medium', timeStyle: 'short' }).format(
    new Date(value),
  );
