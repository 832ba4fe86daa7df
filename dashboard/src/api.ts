// What the server says, and what it says when something is wrong.

export interface Problem {
  status: number;
  detail: string;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const KEY = 'city.key';

// A tab's own: a key is not kept for others who use this browser.
export const key = {
  get: (): string | null => sessionStorage.getItem(KEY),
  set: (value: string | null) =>
    value === null ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, value),
};

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return ask<T>(path, signal ? { signal } : {});
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return ask<T>(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
  });
}

export async function download(path: string): Promise<Blob> {
  return (await answer(path, {})).blob();
}

async function ask<T>(path: string, options: RequestInit): Promise<T> {
  return (await answer(path, options)).json() as Promise<T>;
}

async function answer(path: string, options: RequestInit): Promise<Response> {
  const held = key.get();
  const headers = new Headers(options.headers);
  if (held) headers.set('x-api-key', held);
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, 'The server does not answer. Is `city up` running? This page tries again by itself.');
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => null)) as Problem | null;
  if (response.status === 401) window.dispatchEvent(new Event('city:wants-key'));
  throw new ApiError(response.status, problem?.detail ?? `The server answered ${response.status}.`);
}

export interface Config {
  wants_key: boolean;
  map_style: string | null;
  timezone: string;
}

export interface Columnar {
  columns: string[];
  rows: unknown[][];
}

export interface Stats {
  events_per_second: number | null;
  lag: number | null;
  p95_ms: number | null;
  events: number;
  quarantined: number;
  live: Record<string, number>;
  predictions: number;
  models_serving: number;
  clients: number;
  up_seconds: number;
}
