import { useEffect, useRef } from 'preact/hooks';

/** Calls a function every `ms` milliseconds, always the one of the last render. */
export function useInterval(callback: () => void, ms: number): void {
  const latest = useRef(callback);
  latest.current = callback;
  useEffect(() => {
    const timer = window.setInterval(() => latest.current(), ms);
    return () => window.clearInterval(timer);
  }, [ms]);
}
