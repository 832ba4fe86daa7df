// Data that is loaded one numbered chunk at a time. A failed chunk is retried with backoff.

import { errorMessage } from '../../../api/client';
import { retryDelay } from '../../../api/retry';

interface Failure {
  attempts: number;
  retryAt: number;
  message: string;
}

export class ChunkCache<T> {
  private readonly chunks = new Map<number, T>();
  private readonly pending = new Map<number, AbortController>();
  private readonly failures = new Map<number, Failure>();

  /** `now` is a clock in milliseconds; `delay` gives the wait after a number of failures in a row. */
  constructor(
    private readonly fetchChunk: (chunk: number, signal: AbortSignal) => Promise<T>,
    private readonly now: () => number,
    private readonly delay: (failures: number) => number = retryDelay,
  ) {}

  /** How many chunks are in memory. */
  get size(): number {
    return this.chunks.size;
  }

  /** The message of the last failure that no later attempt has corrected; empty if there is none. */
  get error(): string {
    return [...this.failures.values()].at(-1)?.message ?? '';
  }

  get(chunk: number): T | undefined {
    return this.chunks.get(chunk);
  }

  /** Loads a chunk, unless it is in memory, being loaded, or waiting for its next attempt. Never rejects. */
  async load(chunk: number): Promise<void> {
    const failure = this.failures.get(chunk);
    if (this.chunks.has(chunk) || this.pending.has(chunk) || (failure && this.now() < failure.retryAt)) return;
    const abort = new AbortController();
    this.pending.set(chunk, abort);
    try {
      const content = await this.fetchChunk(chunk, abort.signal);
      if (abort.signal.aborted) return;
      this.chunks.set(chunk, content);
      this.failures.delete(chunk);
    } catch (error) {
      if (abort.signal.aborted) return;
      const attempts = (failure?.attempts ?? 0) + 1;
      this.failures.delete(chunk); // the newest failure is the last of the map
      this.failures.set(chunk, { attempts, retryAt: this.now() + this.delay(attempts), message: errorMessage(error) });
    } finally {
      if (this.pending.get(chunk) === abort) this.pending.delete(chunk);
    }
  }

  /** Releases all chunks outside [first, last], and aborts their loading. */
  keepOnly(first: number, last: number): void {
    const isOutside = (chunk: number) => chunk < first || chunk > last;
    for (const [chunk, abort] of this.pending) {
      if (!isOutside(chunk)) continue;
      abort.abort();
      this.pending.delete(chunk);
    }
    for (const map of [this.chunks, this.failures])
      for (const chunk of map.keys()) if (isOutside(chunk)) map.delete(chunk);
  }

  /** Releases everything. */
  clear(): void {
    this.keepOnly(Infinity, -Infinity);
  }
}
