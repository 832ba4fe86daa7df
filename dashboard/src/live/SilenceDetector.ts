/** The server sends a message every half second, so a longer silence means a half-open connection. */
const MAX_SILENCE_MS = 6_000;

/**
 * Detects a connection that is open and delivers nothing.
 *
 * A page that was busy for seconds (a slow machine draws a map) has messages waiting, but its timer may come first. So
 * a single check proves nothing: messages that wait are delivered before the second one.
 */
export class SilenceDetector {
  private receivedAt = 0;
  private silentChecks = 0;

  received(now: number): void {
    this.receivedAt = now;
    this.silentChecks = 0;
  }

  /** To be called once a second; whether the connection counts as silent. Times are in ms. */
  check(now: number): boolean {
    this.silentChecks = now - this.receivedAt > MAX_SILENCE_MS ? this.silentChecks + 1 : 0;
    return this.silentChecks >= 2;
  }
}
