import { expect, test } from 'vitest';
import { LiveState } from '../../src/live/LiveState';
import type { Delta, Row, Score, Snapshot } from '../../src/live/messages';

const COLUMNS = ['vehicle_id', 't', 'longitude', 'latitude', 'speed'];

const snapshot = (rows: Row[], scores: Score[] = [], seq = 1): Snapshot => ({
  type: 'snapshot',
  epoch: 'a',
  seq,
  at: 1_000,
  layers: { vehicles: { columns: COLUMNS, means: 'Vehicles.', rows }, scores: { rows: scores } },
});

const delta = (layers: Delta['layers'], seq = 2): Delta => ({ type: 'delta', epoch: 'a', seq, at: 2_000, layers });

const score = (id: number): Score => ({ model: 'fraud', id: String(id) });

test('a delta replaces rows by key, adds new ones and removes those that are gone', () => {
  const state = new LiveState();
  state.apply(snapshot([['a', 1, 0, 0, 10], ['b', 1, 0, 0, 20]]), 1_000);
  state.apply(delta({ vehicles: { rows: [['a', 2, 0, 0, 11], ['c', 2, 0, 0, 30]], gone: ['b'] } }), 2_000);
  expect(state.rows('vehicles')).toEqual([['a', 2, 0, 0, 11], ['c', 2, 0, 0, 30]]);
});

test('a snapshot drops the rows and scores before it', () => {
  const state = new LiveState();
  state.apply(snapshot([['a', 1, 0, 0, 10]], [score(1)]), 1_000);
  state.apply(snapshot([['b', 9, 0, 0, 10]], [score(2)], 7), 1_000);
  expect(state.rows('vehicles').map(([id]) => id)).toEqual(['b']);
  expect(state.scores.map(({ id }) => id)).toEqual(['2']);
});

test('a layer that a delta does not name keeps its rows', () => {
  const state = new LiveState();
  state.apply(snapshot([['a', 1, 0, 0, 10]]), 1_000);
  state.apply(delta({}), 2_000);
  expect(state.rows('vehicles')).toHaveLength(1);
  expect(state.rows('cells')).toEqual([]);
});

test('values are read by the name of their column', () => {
  const state = new LiveState();
  const row: Row = ['a', 1, -73.9, 40.7, 10];
  expect(state.value('vehicles', row, 'speed')).toBeUndefined();
  state.apply(snapshot([row]), 1_000);
  expect(state.value('vehicles', row, 'speed')).toBe(10);
  expect(state.value('vehicles', row, 'unknown')).toBeUndefined();
});

test('a score that is sent twice is kept once, and only the last 200 are kept', () => {
  const state = new LiveState();
  state.apply(snapshot([], [score(0), score(1)]), 1_000);
  const scores = Array.from({ length: 250 }, (_, index) => score(index + 1));
  state.apply(delta({ scores: { rows: scores } }), 2_000);
  expect(state.scores).toHaveLength(200);
  expect(state.scores.map(({ id }) => Number(id))).toEqual(Array.from({ length: 200 }, (_, index) => index + 51));
});

test('the position to resume from is that of the last message', () => {
  const state = new LiveState();
  expect(state.position).toBeNull();
  state.apply(snapshot([]), 1_000);
  state.apply(delta({}, 5), 2_000);
  expect(state.position).toEqual({ epoch: 'a', seq: 5 });
});

test('the clock skew starts with the first message and follows later ones slowly', () => {
  const state = new LiveState();
  expect(state.skew).toBe(0);
  state.apply(snapshot([]), 1_500);
  expect(state.skew).toBe(500);
  state.apply(delta({}), 2_600);
  expect(state.skew).toBeCloseTo(510);
});
