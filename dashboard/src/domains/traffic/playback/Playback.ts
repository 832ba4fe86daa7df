// Past traffic on the map: a clock that runs from `start` to `end`, the cells of its time, and the vehicles' motion.
// Cells of the whole range are loaded at once; vehicle positions in chunks, ahead of the clock.

import type { CellTraffic } from '../map/cells';
import { Motion } from '../map/motion';
import { ChunkCache } from './ChunkCache';
import type { CellWindows, HistorySource, VehicleReport } from './history';

export const CHUNK_MS = 120_000;
/** How far ahead of the clock positions are loaded, and handed to the motion, at a speed of 10 or less. */
const LOAD_AHEAD_MS = 60_000;
const FEED_AHEAD_MS = 4_000;
/** Vehicles are drawn between two reports, so a seek needs the reports just before its time. */
const SEEK_BACK_MS = 5_000;

export class Playback {
  /** The clock, in ms since the epoch. */
  at: number;
  speed = 10;
  playing = true;
  /** Of its own: live reports during playback are newer than its clock and would stop its vehicles. */
  readonly motion = new Motion();
  readonly chunks: ChunkCache<VehicleReport[]>;
  private windows: CellWindows = new Map();
  private windowStarts: number[] = [];
  /** Reports before this time were handed to the motion. */
  private fedUntil: number;
  private tickedAt: number;
  private readonly stopped = new AbortController();

  /** The range [start, end) is in ms since the epoch; `now` is a clock in milliseconds. */
  constructor(
    readonly start: number,
    readonly end: number,
    private readonly source: HistorySource,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.at = this.fedUntil = start;
    this.tickedAt = now();
    const fetchChunk = (chunk: number, signal: AbortSignal) => {
      const first = start + chunk * CHUNK_MS;
      return source.vehicleReports(first, Math.min(end, first + CHUNK_MS), signal);
    };
    this.chunks = new ChunkCache(fetchChunk, now);
  }

  /** Loads the cells and the first positions, and moves the clock to the first window. Rejects if there are no cells
   * because the request failed. */
  async load(): Promise<void> {
    this.windows = await this.source.cellWindows(this.start, this.end, this.stopped.signal);
    this.windowStarts = [...this.windows.keys()].sort((a, b) => a - b);
    this.at = Math.max(this.start, this.windowStarts[0] ?? this.start);
    await this.chunks.load(this.chunkOf(this.at));
    this.seek(this.at);
    this.tickedAt = this.now();
  }

  stop(): void {
    this.stopped.abort();
    this.chunks.clear();
  }

  get isStopped(): boolean {
    return this.stopped.signal.aborted;
  }

  get isEmpty(): boolean {
    return this.windowStarts.length === 0;
  }

  get error(): string {
    return this.chunks.error;
  }

  /** Advances the clock by the time since the last call. Returns the cells of its new time. */
  tick(): CellTraffic[] {
    const now = this.now();
    if (this.playing) this.at = Math.min(this.end, this.at + (now - this.tickedAt) * this.speed);
    this.tickedAt = now;
    if (this.at >= this.end) this.playing = false;
    this.feed();
    const windowStart = this.windowStarts.findLast((t) => t <= this.at) ?? this.windowStarts[0];
    return windowStart === undefined ? [] : (this.windows.get(windowStart) ?? []);
  }

  seek(at: number): void {
    this.at = Math.min(this.end, Math.max(this.start, at));
    this.motion.clear();
    this.fedUntil = Math.max(this.start, this.at - SEEK_BACK_MS);
    this.feed();
  }

  /** Hands the reports up to some seconds after the clock to the motion, and loads the next chunks. */
  private feed(): void {
    const scale = Math.max(1, this.speed / 10);
    const until = Math.min(this.end, this.at + FEED_AHEAD_MS * scale);
    while (this.fedUntil < until) {
      const chunk = this.chunkOf(this.fedUntil);
      const reports = this.chunks.get(chunk);
      if (!reports) break;
      const fedUntil = Math.min(until, this.start + (chunk + 1) * CHUNK_MS);
      for (const { id, t, lon, lat, speed } of reports)
        if (t >= this.fedUntil && t < fedUntil) this.motion.report(id, t, lon, lat, speed);
      this.fedUntil = fedUntil;
    }
    const first = this.chunkOf(Math.min(this.fedUntil, this.at));
    const last = this.chunkOf(Math.min(this.end - 1, this.at + LOAD_AHEAD_MS * scale));
    this.chunks.keepOnly(first - 1, last); // one more, for small steps back
    for (let chunk = this.chunkOf(this.fedUntil); chunk <= last; chunk += 1) void this.chunks.load(chunk);
  }

  private chunkOf(t: number): number {
    return Math.floor((t - this.start) / CHUNK_MS);
  }
}
