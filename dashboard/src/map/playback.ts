// History on the same map: windows of the range at once, positions a few minutes at a time, ahead of the clock.

import { type Columnar, get } from '../api';
import { type Cell } from './CityMap';
import { level } from './colours';
import type { Motion } from './motion';

const CHUNK_MS = 120_000;
const AHEAD_MS = 60_000;

export class Playback {
  at: number;
  speed = 10;
  playing = true;
  error = '';
  private frames: number[] = [];
  private readonly cells = new Map<number, Cell[]>();
  private readonly asked = new Set<number>();
  private readonly reports = new Map<number, { t: number; id: string; lon: number; lat: number; speed: number }[]>();
  private fed = 0;
  private ticked = performance.now();
  private readonly stopped = new AbortController();

  constructor(
    readonly start: number,
    readonly end: number,
    private readonly motion: Motion,
  ) {
    this.at = start;
    this.fed = start;
  }

  async load(): Promise<void> {
    const range = `start=${new Date(this.start).toISOString()}&end=${new Date(this.end).toISOString()}`;
    const long = this.end - this.start > 3 * 3_600_000 ? '10' : '2';
    const found = await get<Columnar>(`/api/historical?${range}&resolution=${long}`, this.stopped.signal);
    for (const [t, cell, vehicles, speed] of found.rows as [number, string, number, number][]) {
      const held = this.cells.get(t);
      const row = { cell, vehicles, speed, level: level(speed) };
      if (held) held.push(row);
      else this.cells.set(t, [row]);
    }
    this.frames = [...this.cells.keys()].sort((a, b) => a - b);
    this.motion.clear();
    await this.fetch(this.chunk(this.at));
  }

  stop(): void {
    this.stopped.abort();
  }

  get empty(): boolean {
    return this.frames.length === 0;
  }

  /** Moves the clock on; the windows of that time. */
  tick(): Cell[] {
    const now = performance.now();
    if (this.playing) this.at = Math.min(this.end, this.at + (now - this.ticked) * this.speed);
    this.ticked = now;
    if (this.at >= this.end) this.playing = false;
    this.feed();
    return this.cells.get(this.frame() ?? -1) ?? [];
  }

  seek(at: number): void {
    this.at = Math.min(this.end, Math.max(this.start, at));
    this.motion.clear();
    this.fed = this.at - 5_000;
    this.feed();
  }

  /** The window that the time is in. */
  frame(): number | undefined {
    return this.frames.findLast((t) => t <= this.at) ?? this.frames[0];
  }

  private feed(): void {
    const last = this.at + 4_000 * Math.max(1, this.speed / 10);
    for (let chunk = this.chunk(this.fed); chunk <= this.chunk(last); chunk += 1) {
      const rows = this.reports.get(chunk);
      if (!rows) {
        void this.fetch(chunk);
        return;
      }
      for (const row of rows) {
        if (row.t > this.fed && row.t <= last) this.motion.report(row.id, row.t, row.lon, row.lat, row.speed);
      }
    }
    this.fed = Math.max(this.fed, last);
    void this.fetch(this.chunk(this.at + AHEAD_MS * Math.max(1, this.speed / 10)));
  }

  private chunk(t: number): number {
    return Math.floor((t - this.start) / CHUNK_MS);
  }

  private async fetch(chunk: number): Promise<void> {
    const start = this.start + chunk * CHUNK_MS;
    if (this.asked.has(chunk) || start >= this.end || chunk < 0) return;
    this.asked.add(chunk);
    const end = Math.min(this.end, start + CHUNK_MS);
    try {
      const range = `start=${new Date(start).toISOString()}&end=${new Date(end).toISOString()}`;
      const found = await get<Columnar>(`/api/historical/vehicles?${range}`, this.stopped.signal);
      const rows = found.rows as [number, string, number, number, number][];
      this.reports.set(
        chunk,
        rows.map(([t, id, lon, lat, speed]) => ({ t, id, lon, lat, speed })),
      );
      this.error = '';
    } catch (error) {
      this.asked.delete(chunk);
      this.error = String(error instanceof Error ? error.message : error);
    }
  }
}
