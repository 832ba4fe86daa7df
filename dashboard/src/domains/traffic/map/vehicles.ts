// The live layer `vehicles` as motion.

import type { LiveState } from '../../../live/LiveState';
import type { Row, StreamMessage } from '../../../live/messages';
import type { Motion } from './motion';

/** A row of the layer `vehicles`. Longitude and latitude are in degrees, speed in km/h; null if unknown. */
type VehicleRow = [id: string, t: number, longitude: number, latitude: number, speed: number | null];

/** Adds all vehicles that are known now. */
export function reportAll(motion: Motion, state: LiveState): void {
  report(motion, state.rows('vehicles'));
}

/** Adds what a message says of vehicles. A snapshot replaces everything before it. */
export function reportMessage(motion: Motion, { type, layers }: StreamMessage): void {
  if (type === 'snapshot') motion.clear();
  const layer = layers.vehicles;
  if (!layer) return;
  report(motion, layer.rows as Row[]);
  if ('gone' in layer) motion.remove(layer.gone);
}

function report(motion: Motion, rows: Row[]): void {
  for (const row of rows as VehicleRow[]) motion.report(...row);
}
