// Vehicles report about every two seconds. Between two reports each vehicle is drawn on the line between them, so the
// map shows a time some seconds before the newest report.

import type { Rgb } from './colours';

/** How far the drawn time is behind the clock when the map is live. */
export const DELAY_MS = 2_600;
/** After a longer silence the way between two reports is unknown, and the vehicle moves to the new place at once. */
const MAX_GAP_MS = 20_000;
const MAX_REPORTS = 32;

interface Report {
  t: number;
  lon: number;
  lat: number;
  /** km/h; null if it is unknown. */
  speed: number | null;
}

export class Motion {
  private readonly tracks = new Map<string, Report[]>();
  /** The drawn vehicles, in the order of `positions` and `colours`. */
  ids: string[] = [];
  /** Longitude and latitude of each drawn vehicle. */
  positions = new Float32Array(0);
  /** Red, green, blue and alpha of each drawn vehicle. */
  colours = new Uint8Array(0);

  /** How many vehicles are known. */
  get size(): number {
    return this.tracks.size;
  }

  /** Adds a vehicle's place at a time (ms since the epoch). Ignores reports that are not newer than the last one. */
  report(id: string, t: number, lon: number, lat: number, speed: number | null): void {
    const track = this.tracks.get(id);
    const last = track?.at(-1);
    if (!track || !last || t - last.t > MAX_GAP_MS) this.tracks.set(id, [{ t, lon, lat, speed }]);
    else if (t > last.t) {
      track.push({ t, lon, lat, speed });
      if (track.length > MAX_REPORTS) track.shift();
    }
  }

  remove(ids: Iterable<string>): void {
    for (const id of ids) this.tracks.delete(id);
  }

  clear(): void {
    this.tracks.clear();
  }

  /** Computes where each vehicle is at a time (ms since the epoch). Reports before that time are dropped. */
  moveTo(t: number, speedColour: (speed: number | null) => Rgb): void {
    const count = this.tracks.size;
    // New arrays each time: deck.gl compares by identity.
    this.positions = new Float32Array(count * 2);
    this.colours = new Uint8Array(count * 4);
    this.ids = [];
    let index = 0;
    for (const [id, reports] of this.tracks) {
      while (reports.length > 2 && reports[1]!.t <= t) reports.shift();
      const from = reports[0]!;
      const to = reports[1] ?? from;
      const span = to.t - from.t;
      const share = span > 0 ? Math.min(1, Math.max(0, (t - from.t) / span)) : 1;
      this.positions[index * 2] = from.lon + (to.lon - from.lon) * share;
      this.positions[index * 2 + 1] = from.lat + (to.lat - from.lat) * share;
      this.colours.set([...speedColour(to.speed), 255], index * 4);
      this.ids.push(id);
      index += 1;
    }
  }

  /** A vehicle's drawn longitude and latitude; null for a vehicle that is not drawn. */
  positionOf(id: string): [number, number] | null {
    const index = this.ids.indexOf(id);
    return index < 0 ? null : [this.positions[index * 2]!, this.positions[index * 2 + 1]!];
  }
}
