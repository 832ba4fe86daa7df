import { useEffect, useState } from 'preact/hooks';
import { apiKey, KEY_REQUIRED } from '../api/client';
import type { Config } from '../api/types';
import { live } from '../live/LiveConnection';

/** Keeps the live connection open while the user may use the server. Returns whether a key has to be entered first. */
export function useAccess(config: Config | null): [keyRequired: boolean, onKey: () => void] {
  const [keyRequired, setKeyRequired] = useState(false);
  useEffect(() => {
    const requireKey = () => setKeyRequired(true);
    window.addEventListener(KEY_REQUIRED, requireKey);
    return () => window.removeEventListener(KEY_REQUIRED, requireKey);
  }, []);
  useEffect(() => {
    if (!config || (config.wants_key && !apiKey.get())) {
      setKeyRequired(Boolean(config?.wants_key));
      return;
    }
    live.start();
    return () => live.stop();
  }, [config?.wants_key, keyRequired]);
  return [keyRequired, () => setKeyRequired(false)];
}
