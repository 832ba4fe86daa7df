// The live city over one WebSocket: a snapshot, then what changes. A lost connection comes back by itself, and goes on
// where it was.

import { key } from './api';

export type Row = unknown[];

interface LayerMessage {
  columns?: string[];
  rows: Row[];
  gone?: string[];
}

interface Message {
  type: 'snapshot' | 'delta';
  epoch: string;
  seq: number;
  at: number;
  layers: Record<string, LayerMessage>;
}

export type State = 'connecting' | 'live' | 'lost';

export interface Score {
  model: string;
  id: string;
  [name: string]: unknown;
}

const SILENT_MS = 6_000;
const SCORES = 200;

export class Live {
  state: State = 'connecting';
  why = '';
  /** Of each layer, the newest row of each key. */
  readonly layers = new Map<string, Map<string, Row>>();
  readonly columns = new Map<string, string[]>();
  scores: Score[] = [];
  /** Milliseconds by which this machine's clock is ahead of the server's, about. */
  skew = 0;
  lastAt = 0;
  connections = 0;
  private socket: WebSocket | null = null;
  private epoch = '';
  private seq = -1;
  private attempt = 0;
  private watch = 0;
  private retry = 0;
  private readonly listeners = new Set<(changed: Record<string, LayerMessage>, whole: boolean) => void>();
  private readonly watchers = new Set<() => void>();
  private readonly again = () => this.now();

  constructor(private readonly url = `${location.origin.replace('http', 'ws')}/ws/stream`) {}

  start(): void {
    this.connect();
    this.watch = window.setInterval(() => this.look(), 1_000);
    window.addEventListener('online', this.again);
  }

  stop(): void {
    window.clearInterval(this.watch);
    window.clearTimeout(this.retry);
    window.removeEventListener('online', this.again);
    this.listeners.clear();
    this.close();
  }

  onChange(listener: (changed: Record<string, LayerMessage>, whole: boolean) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onState(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /** A row's value by its column's name. */
  value(layer: string, row: Row, column: string): unknown {
    const place = this.columns.get(layer)?.indexOf(column) ?? -1;
    return place < 0 ? undefined : row[place];
  }

  private connect(): void {
    const resume = this.seq >= 0 ? `?since=${this.seq}&epoch=${this.epoch}` : '';
    const held = key.get();
    this.socket = held
      ? new WebSocket(this.url + resume, ['city.bearer', held])
      : new WebSocket(this.url + resume);
    this.connections += 1;
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data as string) as Message);
    this.socket.onclose = (event) => this.lost(event.reason || 'The live connection was lost.');
  }

  private take(message: Message): void {
    const whole = message.type === 'snapshot';
    this.epoch = message.epoch;
    this.seq = message.seq;
    this.lastAt = Date.now();
    this.skew = this.skew === 0 ? this.lastAt - message.at : this.skew * 0.9 + (this.lastAt - message.at) * 0.1;
    this.attempt = 0;
    for (const [name, layer] of Object.entries(message.layers)) {
      if (name === 'scores') {
        const fresh = layer.rows as unknown as Score[];
        const known = new Set(this.scores.map((score) => score.id));
        const added = whole ? fresh : fresh.filter((score) => !known.has(score.id));
        this.scores = (whole ? added : [...this.scores, ...added]).slice(-SCORES);
        continue;
      }
      if (layer.columns) this.columns.set(name, layer.columns);
      const held = whole ? new Map<string, Row>() : (this.layers.get(name) ?? new Map<string, Row>());
      for (const row of layer.rows) held.set(row[0] as string, row);
      for (const gone of layer.gone ?? []) held.delete(gone);
      this.layers.set(name, held);
    }
    this.set('live', '');
    for (const listener of this.listeners) listener(message.layers, whole);
  }

  /** Half-open connections say nothing: the server speaks twice a second. */
  private look(): void {
    if (this.state === 'live' && Date.now() - this.lastAt > SILENT_MS) {
      this.close();
      this.lost('The server has been silent for some seconds.');
    }
  }

  private lost(why: string): void {
    this.socket = null;
    this.set('lost', why);
    const wait = Math.min(10_000, 500 * 2 ** this.attempt) * (0.7 + 0.6 * Math.random());
    this.attempt += 1;
    window.clearTimeout(this.retry);
    this.retry = window.setTimeout(() => this.now(), wait);
  }

  private now(): void {
    if (this.socket) return;
    window.clearTimeout(this.retry);
    this.connect();
  }

  private close(): void {
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.close();
    this.socket = null;
  }

  private set(state: State, why: string): void {
    if (this.state === state && this.why === why) return;
    this.state = state;
    this.why = why;
    for (const watcher of this.watchers) watcher();
  }
}

export const live = new Live();
