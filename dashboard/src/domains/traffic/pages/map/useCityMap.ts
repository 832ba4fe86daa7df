import { type RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { get } from '../../../../api/client';
import { CityMap, type MotionFrame, type Scene } from '../../map/CityMap';
import { thresholds } from '../../map/colours';
import type { TrafficResponse } from './types';

declare global {
  interface Window {
    /** What the map draws, for tests in a browser. */
    city?: { frames: () => number; where: (id: string) => [number, number] | null; vehicles: () => string[] };
  }
}

interface CityMapProps {
  style: string | null;
  motionFrame: () => MotionFrame;
  onSelect: (cell: string | null) => void;
  onError: (message: string) => void;
}

interface MountedMap {
  /** The element that holds the map. */
  container: RefObject<HTMLDivElement | null>;
  /** Changes what the map shows. */
  show: (scene: Scene) => void;
}

/** Draws a map into an element as long as the page is open. */
export function useCityMap({ style, motionFrame, onSelect, onError }: CityMapProps): MountedMap {
  const container = useRef<HTMLDivElement>(null);
  const [map, setMap] = useState<CityMap | null>(null);
  // The map outlives a render, and is to draw the motion of the last one.
  const latestFrame = useRef(motionFrame);
  latestFrame.current = motionFrame;

  useEffect(() => {
    if (!container.current) return;
    let mounted: CityMap;
    try {
      const frame = () => latestFrame.current();
      mounted = new CityMap({ container: container.current, style, motionFrame: frame, onSelect });
    } catch (error) {
      onError(`This browser cannot draw the map because WebGL 2 is not available (${String(error)}).`);
      return;
    }
    setMap(mounted);
    window.city = {
      frames: () => mounted.frames,
      where: (id) => latestFrame.current().motion.positionOf(id),
      vehicles: () => latestFrame.current().motion.ids,
    };
    return () => {
      delete window.city;
      mounted.remove();
    };
  }, [style]);

  useEffect(() => void loadThresholds(), []);

  return { container, show: (scene) => map?.show(scene) };
}

/** Uses the server's thresholds; the ones in the code stay if it does not answer. */
async function loadThresholds(): Promise<void> {
  try {
    const { thresholds_kmh: limits } = await get<TrafficResponse>('/api/current-traffic');
    thresholds.high = limits.high_below;
    thresholds.medium = limits.medium_below;
  } catch {
    return;
  }
}
