import { useEffect, useState } from 'preact/hooks';
import { errorMessage, get } from '../../../../api/client';
import type { CellResponse } from './types';

/** The traffic and predictions of the selected cell; null until they are there. */
export function useCellDetails(selected: string | null, onError: (message: string) => void): CellResponse | null {
  const [details, setDetails] = useState<CellResponse | null>(null);
  useEffect(() => {
    setDetails(null);
    if (!selected) return;
    const abort = new AbortController();
    get<CellResponse>(`/api/cell/${selected}`, abort.signal)
      .then(setDetails)
      .catch((error: unknown) => abort.signal.aborted || onError(errorMessage(error)));
    return () => abort.abort();
  }, [selected]);
  return details;
}
