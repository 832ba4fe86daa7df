import { expect, test } from 'vitest';
import { Motion } from '../../../../src/domains/traffic/map/motion';
import { type CellWindows, groupByWindow, type HistorySource } from '../../../../src/domains/traffic/playback/history';
import { CHUNK_MS, Playback } from '../../../../src/domains/traffic/playback/Playback';

const START = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;
const WINDOW_MS = 120_000;
const REPORT_MS = 2_000;

/** An hour in which one vehicle drives a degree of longitude per second, beginning at 0. */
class Recording implements HistorySource {
  readonly requests: number[] = [];
  /** Chunks whose next request fails. */
  readonly broken = new Set<number>();
  firstWindow = START;

  async cellWindows(start: number, end: number): Promise<CellWindows> {
    const windows: CellWindows = new Map();
    for (let t = Math.max(start, this.firstWindow); t < end; t += WINDOW_MS)
      windows.set(t, [{ cell: 'cell', vehicles: (t - START) / WINDOW_MS, speed: 20, level: 'medium' }]);
    return windows;
  }

  async vehicleReports(start: number, end: number) {
    const chunk = (start - START) / CHUNK_MS;
    this.requests.push(chunk);
    if (this.broken.delete(chunk)) throw new Error('QuestDB is not reachable');
    return Array.from({ length: (end - start) / REPORT_MS }, (_, index) => {
      const t = start + index * REPORT_MS;
      return { id: 'a', t, lon: (t - START) / 1_000, lat: 0, speed: 20 };
    });
  }
}

class Player {
  readonly recording = new Recording();
  time = 0;
  readonly playback = new Playback(START, START + HOUR_MS, this.recording, () => this.time);

  /** Lets the page's clock pass in steps of 100 ms. After each, responses arrive. */
  async pass(ms: number, check: () => void = () => undefined): Promise<void> {
    for (const until = this.time + ms; this.time < until; ) {
      this.time += 100;
      this.playback.tick();
      check();
      await new Promise(setImmediate);
    }
  }

  /** By how many seconds the drawn vehicle is behind or ahead of the clock. */
  get offset(): number {
    const { motion, at } = this.playback;
    motion.moveTo(at, () => [0, 0, 0]);
    return (motion.positionOf('a')?.[0] ?? NaN) - (at - START) / 1_000;
  }
}

test('vehicles are where they were at the time of the clock', async () => {
  const player = new Player();
  await player.playback.load();
  await player.pass(20_000, () => expect(Math.abs(player.offset)).toBeLessThan(0.01));
  expect(player.playback.at).toBe(START + 200_000);
});

test('live reports while the history loads do not stop its vehicles', async () => {
  const player = new Player();
  const live = new Motion();
  const loading = player.playback.load();
  live.report('a', START + HOUR_MS, 3_600, 0, 20);
  await loading;
  live.report('a', START + HOUR_MS + REPORT_MS, 3_602, 0, 20);
  await player.pass(2_000);
  expect(Math.abs(player.offset)).toBeLessThan(0.01);
  live.moveTo(START + HOUR_MS, () => [0, 0, 0]);
  expect(live.positionOf('a')).toEqual([3_600, 0]);
});

test('the time that loading takes is not played', async () => {
  const player = new Player();
  const loading = player.playback.load();
  player.time = 8_000;
  await loading;
  player.playback.tick();
  expect(player.playback.at).toBe(START);
});

test('playback begins with the first window', async () => {
  const player = new Player();
  player.recording.firstWindow = START + 20 * WINDOW_MS;
  await player.playback.load();
  expect(player.playback.at).toBe(player.recording.firstWindow);
  await player.pass(1_000);
  expect(Math.abs(player.offset)).toBeLessThan(0.01);
  expect(player.recording.requests.every((chunk) => chunk >= 19)).toBe(true);
});

test('vehicles move after a seek to any time, the beginning and the end included', async () => {
  const player = new Player();
  await player.playback.load();
  for (const at of [START + 1_800_000, START + 3_000, START, START + HOUR_MS - 5_000]) {
    player.playback.seek(at);
    await player.pass(200); // positions arrive after the first step
    expect(Math.abs(player.offset)).toBeLessThan(0.01);
  }
  await player.pass(500);
  expect(player.playback.playing).toBe(false);
  expect(player.playback.at).toBe(START + HOUR_MS);
});

test('a chunk that fails is retried, and vehicles go on when it is there', async () => {
  const player = new Player();
  player.recording.broken.add(0);
  await player.playback.load();
  expect(player.playback.error).toBe('QuestDB is not reachable');
  await player.pass(1_000);
  expect(player.recording.requests.filter((chunk) => chunk === 0)).toHaveLength(2);
  expect(player.playback.error).toBe('');
  expect(Math.abs(player.offset)).toBeLessThan(0.01);
});

test('while the server does not answer, requests become rare', async () => {
  const player = new Player();
  player.playback.playing = false;
  await player.playback.load();
  player.recording.vehicleReports = (start) => {
    player.recording.requests.push(start);
    return Promise.reject(new Error('QuestDB is not reachable'));
  };
  player.playback.seek(START + 1_800_000);
  player.recording.requests.length = 0;
  await player.pass(60_000);
  expect(player.recording.requests.length).toBeLessThan(30); // two chunks, of 600 steps
});

test('at the highest speed, the chunks in memory stay few over the whole hour', async () => {
  const player = new Player();
  player.playback.speed = 60;
  await player.playback.load();
  let most = 0;
  await player.pass(HOUR_MS / 60, () => {
    most = Math.max(most, player.playback.chunks.size);
    if (player.playback.at < START + HOUR_MS) expect(Math.abs(player.offset)).toBeLessThan(0.01);
  });
  expect(player.playback.at).toBe(START + HOUR_MS);
  expect(most).toBeLessThanOrEqual(6);
  expect(player.recording.requests).toEqual(Array.from({ length: 30 }, (_, chunk) => chunk));
});

test('a playback that is stopped holds no chunks', async () => {
  const player = new Player();
  await player.playback.load();
  player.playback.stop();
  expect(player.playback.chunks.size).toBe(0);
  expect(player.playback.isStopped).toBe(true);
});

test('the cells are those of the window that the clock is in', async () => {
  const player = new Player();
  await player.playback.load();
  player.playback.playing = false;
  player.playback.seek(START + 3 * WINDOW_MS + 5_000);
  expect(player.playback.tick().map(({ vehicles }) => vehicles)).toEqual([3]);
});

test('rows of the server become cells with levels, by window', () => {
  const windows = groupByWindow([[1, 'a', 2, 50], [2, 'a', 3, null], [1, 'b', 4, 5]]);
  expect([...windows.keys()]).toEqual([1, 2]);
  expect(windows.get(1)?.map(({ cell, level }) => [cell, level])).toEqual([['a', 'low'], ['b', 'high']]);
  expect(windows.get(2)?.[0]?.level).toBeNull();
});
