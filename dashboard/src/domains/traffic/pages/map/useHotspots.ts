import { useApi } from '../../../../hooks/useApi';
import type { Hotspot, HotspotsResponse } from './types';

const NONE: Hotspot[] = [];

/** The cells where most vehicles are slow. */
export function useHotspots(): Hotspot[] {
  return useApi<HotspotsResponse>('/api/hotspots?count=8', 5).data?.hotspots ?? NONE;
}
