// Messages of the WebSocket at /ws/stream. The server sends one snapshot, then a delta every half second.

/** A layer's newest row of one key: the key, its time (ms since the epoch), then the layer's other columns. */
export type Row = [key: string, t: number, ...values: unknown[]];

/** A row of the layer `vehicles`. Longitude and latitude are in degrees, speed in km/h. */
export type VehicleRow = [id: string, t: number, longitude: number, latitude: number, speed: number];

export interface LayerSnapshot {
  columns: string[];
  means: string;
  rows: Row[];
}

export interface LayerDelta {
  rows: Row[];
  /** Keys that the server has removed. */
  gone: string[];
}

/** A model's output for one event. Its other fields depend on the model. */
export interface Score {
  model: string;
  id: string;
  timestamp?: string;
  [field: string]: unknown;
}

export interface ScoreFeed {
  rows: Score[];
}

interface Envelope {
  /** Identifies the server process; sequence numbers of different processes are unrelated. */
  epoch: string;
  seq: number;
  /** The server's time, in ms since the epoch. */
  at: number;
}

export interface Snapshot extends Envelope {
  type: 'snapshot';
  layers: Record<string, LayerSnapshot | ScoreFeed>;
}

export interface Delta extends Envelope {
  type: 'delta';
  layers: Record<string, LayerDelta | ScoreFeed>;
}

export type StreamMessage = Snapshot | Delta;

export const SCORES = 'scores';

export const isScoreFeed = (
  layer: string,
  _content: LayerSnapshot | LayerDelta | ScoreFeed,
): _content is ScoreFeed => layer === SCORES;
