// Vehicles report every two seconds or so; between two reports each is drawn where it was on the way. What is shown is
// therefore a little later than what is known.

export const DELAY_MS = 2_600;
/** Who is silent for longer did not go straight from the one place to the other. */
const LONGEST_MS = 20_000;
const MOST = 32;

interface Report {
  t: number;
  lon: number;
  lat: number;
  speed: number;
}

export class Motion {
  private readonly tracks = new Map<string, Report[]>();
  positions = new Float32Array(0);
  colours = new Uint8Array(0);
  ids: string[] = [];

  get size(): number {
    return this.tracks.size;
  }

  /** A vehicle was at a place at a time (ms). What is older than what is known is left out. */
  report(id: string, t: number, lon: number, lat: number, speed: number): void {
    const held = this.tracks.get(id);
    const last = held?.at(-1);
    if (!held || !last || t - last.t > LONGEST_MS) this.tracks.set(id, [{ t, lon, lat, speed }]);
    else if (t > last.t) {
      held.push({ t, lon, lat, speed });
      if (held.length > MOST) held.shift();
    }
  }

  forget(ids: Iterable<string>): void {
    for (const id of ids) this.tracks.delete(id);
  }

  clear(): void {
    this.tracks.clear();
  }

  /** Where each was at a time (ms), into `positions` (longitude, latitude) and `colours` (RGBA). */
  at(t: number, colour: (speed: number) => readonly [number, number, number]): void {
    const count = this.tracks.size;
    // New arrays each time: deck.gl sees by identity that they changed.
    this.positions = new Float32Array(count * 2);
    this.colours = new Uint8Array(count * 4);
    this.ids = [];
    let place = 0;
    for (const [id, reports] of this.tracks) {
      while (reports.length > 2 && reports[1]!.t <= t) reports.shift();
      const from = reports[0]!;
      const to = reports[1] ?? from;
      const span = to.t - from.t;
      const share = span > 0 ? Math.min(1, Math.max(0, (t - from.t) / span)) : 1;
      this.positions[place * 2] = from.lon + (to.lon - from.lon) * share;
      this.positions[place * 2 + 1] = from.lat + (to.lat - from.lat) * share;
      const [r, g, b] = colour(to.speed);
      this.colours.set([r, g, b, 255], place * 4);
      this.ids.push(id);
      place += 1;
    }
  }

  /** Where one is drawn; for tests. */
  where(id: string): [number, number] | null {
    const place = this.ids.indexOf(id);
    return place < 0 ? null : [this.positions[place * 2]!, this.positions[place * 2 + 1]!];
  }
}
