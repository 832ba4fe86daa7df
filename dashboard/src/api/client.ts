// Requests to the city's server. Every failure becomes an ApiError with a message for the page.

import type { ProblemDetails } from './generated';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const KEY = 'city.key';
export const KEY_REQUIRED = 'city:key-required';

// In session storage: other users of this browser do not get the key.
export const apiKey = {
  get: (): string | null => sessionStorage.getItem(KEY),
  set: (value: string) => sessionStorage.setItem(KEY, value),
};

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

export async function post(path: string, body: unknown): Promise<void> {
  await send(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
  });
}

export async function download(path: string): Promise<Blob> {
  return (await send(path, {})).blob();
}

export const errorMessage = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function send(path: string, options: RequestInit): Promise<Response> {
  const headers = new Headers(options.headers);
  const key = apiKey.get();
  if (key) headers.set('x-api-key', key);
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, 'The server does not answer. Is `city up` running? This page retries automatically.');
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => null)) as Partial<ProblemDetails> | null;
  if (response.status === 401) window.dispatchEvent(new Event(KEY_REQUIRED));
  throw new ApiError(response.status, problem?.detail ?? `The server answered with status ${response.status}.`);
}
