import { useEffect, useState } from 'preact/hooks';
import { errorMessage, get } from '../api/client';

export interface ApiResult<T> {
  /** The last response; it stays while later requests fail. */
  data: T | null;
  /** The last request's error; empty after a success. */
  error: string;
  reload: () => void;
}

/** Requests a path now and then every `everySeconds`. */
export function useApi<T>(path: string, everySeconds: number): ApiResult<T> {
  const [data, setData] = useState<T | null>(null);
  const [error, setError] = useState('');
  const [reloads, setReloads] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const request = async () => {
      try {
        setData(await get<T>(path, abort.signal));
        setError('');
      } catch (failure) {
        if (abort.signal.aborted) return;
        setError(errorMessage(failure));
      }
      timer = window.setTimeout(request, everySeconds * 1000);
    };
    void request();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [path, everySeconds, reloads]);
  return { data, error, reload: () => setReloads((count) => count + 1) };
}
