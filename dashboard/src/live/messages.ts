// Messages of the WebSocket at /ws/stream. The server sends one snapshot, then a delta every half second.

import type { LayerDelta, LayerSnapshot, ScoreFeed } from '../api/generated';

export type {
  DeltaMessage as Delta,
  LayerDelta,
  LayerSnapshot,
  Score,
  ScoreFeed,
  SnapshotMessage as Snapshot,
  StreamMessage,
} from '../api/generated';

/** A layer's newest row of one key: the key, its time (ms since the epoch), then the layer's other columns. */
export type Row = LayerSnapshot['rows'][number];

export const SCORES = 'scores';

export const isScoreFeed = (
  layer: string,
  _content: LayerSnapshot | LayerDelta | ScoreFeed,
): _content is ScoreFeed => layer === SCORES;
