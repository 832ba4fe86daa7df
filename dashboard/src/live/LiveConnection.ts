// The WebSocket to the live city. A lost connection is opened again, and resumes after the last message.

import { apiKey } from '../api/client';
import { retryDelay } from '../api/retry';
import { LiveState } from './LiveState';
import type { StreamMessage } from './messages';
import { SilenceDetector } from './SilenceDetector';

export interface ConnectionStatus {
  state: 'connecting' | 'live' | 'lost';
  /** Why the connection is lost; empty otherwise. */
  reason: string;
}

type MessageListener = (message: StreamMessage) => void;
type StatusListener = (status: ConnectionStatus) => void;

export class LiveConnection {
  readonly data = new LiveState();
  status: ConnectionStatus = { state: 'connecting', reason: '' };
  private socket: WebSocket | null = null;
  private readonly silence = new SilenceDetector();
  private failures = 0;
  private silenceTimer = 0;
  private retryTimer = 0;
  private readonly messageListeners = new Set<MessageListener>();
  private readonly statusListeners = new Set<StatusListener>();
  private readonly reconnect = () => this.connect();

  start(): void {
    this.connect();
    this.silenceTimer = window.setInterval(() => this.checkSilence(), 1_000);
    window.addEventListener('online', this.reconnect);
  }

  stop(): void {
    window.clearInterval(this.silenceTimer);
    window.clearTimeout(this.retryTimer);
    window.removeEventListener('online', this.reconnect);
    this.close();
  }

  /** Calls `listener` after each message was merged into `data`. Returns a function that ends this. */
  onMessage(listener: MessageListener): () => void {
    this.messageListeners.add(listener);
    return () => this.messageListeners.delete(listener);
  }

  /** Calls `listener` when the status changes. Returns a function that ends this. */
  onStatus(listener: StatusListener): () => void {
    this.statusListeners.add(listener);
    return () => this.statusListeners.delete(listener);
  }

  private connect(): void {
    if (this.socket) return;
    window.clearTimeout(this.retryTimer);
    const { position } = this.data;
    const resume = position ? `?since=${position.seq}&epoch=${position.epoch}` : '';
    const url = `${location.origin.replace('http', 'ws')}/ws/stream${resume}`;
    const key = apiKey.get();
    this.socket = key ? new WebSocket(url, ['city.bearer', key]) : new WebSocket(url);
    this.socket.onmessage = (event: MessageEvent<string>) => this.receive(JSON.parse(event.data) as StreamMessage);
    this.socket.onclose = (event) => this.lose(event.reason || 'The live connection was lost.');
  }

  private receive(message: StreamMessage): void {
    const now = Date.now();
    this.silence.received(now);
    this.failures = 0;
    this.data.apply(message, now);
    this.setStatus({ state: 'live', reason: '' });
    for (const listener of this.messageListeners) listener(message);
  }

  private checkSilence(): void {
    if (!this.silence.check(Date.now()) || this.status.state !== 'live') return;
    this.close();
    this.lose('The server has sent nothing for some seconds.');
  }

  private lose(reason: string): void {
    this.socket = null;
    this.setStatus({ state: 'lost', reason });
    this.failures += 1;
    window.clearTimeout(this.retryTimer);
    this.retryTimer = window.setTimeout(this.reconnect, retryDelay(this.failures));
  }

  private close(): void {
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.close();
    this.socket = null;
  }

  private setStatus(status: ConnectionStatus): void {
    if (this.status.state === status.state && this.status.reason === status.reason) return;
    this.status = status;
    for (const listener of this.statusListeners) listener(status);
  }
}

/** One connection per page, whichever views are open. */
export const live = new LiveConnection();
