// The newest row of each key of every layer, merged from the messages of the WebSocket.

import {
  isScoreFeed,
  type LayerDelta,
  type LayerSnapshot,
  type Row,
  type Score,
  type StreamMessage,
} from './messages';

const MAX_SCORES = 200;
const SKEW_SMOOTHING = 0.1;

export class LiveState {
  /** The last message that was applied; a new connection resumes after it. */
  position: { epoch: string; seq: number } | null = null;
  /** The most recent scores, the newest last. */
  scores: Score[] = [];
  private readonly layers = new Map<string, Map<string, Row>>();
  private readonly columns = new Map<string, string[]>();
  private clockSkew: number | null = null;

  /** Milliseconds by which this machine's clock is ahead of the server's, smoothed over messages. */
  get skew(): number {
    return this.clockSkew ?? 0;
  }

  /** Merges a message that was received at `receivedAt` (ms since the epoch). */
  apply(message: StreamMessage, receivedAt: number): void {
    this.position = { epoch: message.epoch, seq: message.seq };
    const skew = receivedAt - message.at;
    this.clockSkew = this.clockSkew === null ? skew : this.clockSkew + (skew - this.clockSkew) * SKEW_SMOOTHING;
    const isSnapshot = message.type === 'snapshot';
    for (const [layer, content] of Object.entries(message.layers)) {
      if (isScoreFeed(layer, content)) this.mergeScores(content.rows, isSnapshot);
      else this.mergeRows(layer, content, isSnapshot);
    }
  }

  /** The rows of a layer; none while the layer is unknown. */
  rows(layer: string): Row[] {
    return [...(this.layers.get(layer)?.values() ?? [])];
  }

  /** A row's value by column name; undefined for a column that the layer does not have. */
  value(layer: string, row: Row, column: string): unknown {
    const index = this.columns.get(layer)?.indexOf(column) ?? -1;
    return index < 0 ? undefined : row[index];
  }

  private mergeRows(layer: string, content: LayerSnapshot | LayerDelta, isSnapshot: boolean): void {
    if ('columns' in content) this.columns.set(layer, content.columns);
    const rows = (isSnapshot ? undefined : this.layers.get(layer)) ?? new Map<string, Row>();
    for (const row of content.rows) rows.set(row[0], row);
    if ('gone' in content) for (const key of content.gone) rows.delete(key);
    this.layers.set(layer, rows);
  }

  private mergeScores(scores: Score[], isSnapshot: boolean): void {
    const previous = isSnapshot ? [] : this.scores;
    const ids = new Set(previous.map((score) => score.id));
    this.scores = [...previous, ...scores.filter((score) => !ids.has(score.id))].slice(-MAX_SCORES);
  }
}
