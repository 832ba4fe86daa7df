import { expect, test } from 'vitest';
import { LiveState } from '../../../../src/live/LiveState';
import type { Row, StreamMessage } from '../../../../src/live/messages';
import { Motion } from '../../../../src/domains/traffic/map/motion';
import { reportAll, reportMessage } from '../../../../src/domains/traffic/map/vehicles';

const rows: Row[] = [['a', 1_000, 1, 2, 30], ['b', 1_000, 3, 4, 30]];
const envelope = { epoch: 'a', seq: 1, at: 0 };
const snapshot: StreamMessage = {
  ...envelope,
  type: 'snapshot',
  layers: { vehicles: { columns: [], means: '', rows } },
};

function ids(motion: Motion): string[] {
  motion.moveTo(0, () => [0, 0, 0]);
  return motion.ids;
}

test('a snapshot replaces all vehicles', () => {
  const motion = new Motion();
  motion.report('old', 0, 0, 0, 0);
  reportMessage(motion, snapshot);
  expect(ids(motion)).toEqual(['a', 'b']);
});

test('a delta adds reports and removes vehicles that are gone', () => {
  const motion = new Motion();
  reportMessage(motion, snapshot);
  const vehicles = { rows: [['c', 2_000, 5, 6, 30]] as Row[], gone: ['a'] };
  reportMessage(motion, { ...envelope, type: 'delta', layers: { vehicles } });
  reportMessage(motion, { ...envelope, type: 'delta', layers: {} });
  expect(ids(motion)).toEqual(['b', 'c']);
});

test('a map that is opened later has all vehicles of the state', () => {
  const state = new LiveState();
  state.apply(snapshot, 0);
  const motion = new Motion();
  reportAll(motion, state);
  expect(ids(motion)).toEqual(['a', 'b']);
});
