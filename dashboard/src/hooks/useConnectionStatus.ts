import { useEffect, useState } from 'preact/hooks';
import { type ConnectionStatus, live } from '../live/LiveConnection';

/** The status of the live connection. */
export function useConnectionStatus(): ConnectionStatus {
  const [status, setStatus] = useState(live.status);
  useEffect(() => {
    setStatus(live.status);
    return live.onStatus(setStatus);
  }, []);
  return status;
}
