import { expect, test } from 'vitest';
import { ChunkCache } from '../../../../src/domains/traffic/playback/ChunkCache';

interface Request {
  chunk: number;
  signal: AbortSignal;
  resolve: (content: string) => void;
  reject: (error: Error) => void;
}

/** Requests that the test answers, and a clock that it sets. */
class Server {
  time = 0;
  readonly requests: Request[] = [];
  readonly cache = new ChunkCache<string>(
    (chunk, signal) =>
      new Promise((resolve, reject) => this.requests.push({ chunk, signal, resolve, reject })),
    () => this.time,
    (failures) => 1_000 * 2 ** (failures - 1),
  );

  /** Loads a chunk whose request fails, if one is sent; whether it was. */
  async failToLoad(chunk: number): Promise<boolean> {
    const before = this.requests.length;
    const loading = this.cache.load(chunk);
    this.requests[before]?.reject(new Error('QuestDB is not reachable'));
    await loading;
    return this.requests.length > before;
  }
}

test('a chunk is requested once while it is loaded and when it is in memory', async () => {
  const { cache, requests } = new Server();
  const loading = cache.load(3);
  await cache.load(3);
  requests[0]!.resolve('content');
  await loading;
  await cache.load(3);
  expect(requests.map(({ chunk }) => chunk)).toEqual([3]);
  expect(cache.get(3)).toBe('content');
});

test('a failed chunk is retried after a delay that doubles', async () => {
  const server = new Server();
  const attempts: number[] = [];
  for (server.time = 0; server.time <= 8_000; server.time += 100)
    if (await server.failToLoad(0)) attempts.push(server.time);
  expect(attempts).toEqual([0, 1_000, 3_000, 7_000]);
});

test('the error of a failed chunk is gone after a successful attempt', async () => {
  const server = new Server();
  await server.failToLoad(0);
  expect(server.cache.error).toBe('QuestDB is not reachable');
  server.time = 1_000;
  const loading = server.cache.load(0);
  server.requests.at(-1)!.resolve('content');
  await loading;
  expect(server.cache.error).toBe('');
  expect(server.cache.get(0)).toBe('content');
});

test('chunks outside the range are released, and loaded again when they are needed', async () => {
  const { cache, requests } = new Server();
  const loads = [0, 1, 2].map((chunk) => cache.load(chunk));
  requests.forEach(({ resolve, chunk }) => resolve(`content ${chunk}`));
  await Promise.all(loads);
  cache.keepOnly(1, 2);
  expect([0, 1, 2].map((chunk) => cache.get(chunk))).toEqual([undefined, 'content 1', 'content 2']);
  expect(cache.size).toBe(2);
  void cache.load(0);
  expect(requests.at(-1)!.chunk).toBe(0);
});

test('a chunk that is released while it is loaded is aborted, and its response is not kept', async () => {
  const { cache, requests } = new Server();
  const loading = cache.load(0);
  cache.keepOnly(5, 6);
  expect(requests[0]!.signal.aborted).toBe(true);
  requests[0]!.resolve('late');
  await loading;
  expect(cache.size).toBe(0);
  const failing = cache.load(0);
  cache.clear();
  requests[1]!.reject(new Error('aborted'));
  await failing;
  expect(cache.error).toBe('');
});

test('a chunk that is released and loaded again keeps the new response', async () => {
  const { cache, requests } = new Server();
  const first = cache.load(0);
  cache.clear();
  const second = cache.load(0);
  requests[0]!.resolve('old');
  await first;
  void cache.load(0); // is being loaded: no third request
  requests[1]!.resolve('new');
  await second;
  expect(requests).toHaveLength(2);
  expect(cache.get(0)).toBe('new');
});
