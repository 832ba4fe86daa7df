import { expect, test } from 'vitest';
import { Motion } from '../../../../src/domains/traffic/map/motion';

const grey = () => [10, 20, 30] as const;

function drawn(motion: Motion, id: string, t: number): number[] {
  motion.moveTo(t, grey);
  const position = motion.positionOf(id);
  if (!position) throw new Error(`${id} is not drawn`);
  return position;
}

test('between two reports a vehicle is on the line between them', () => {
  const motion = new Motion();
  motion.report('a', 0, 0, 10, 30);
  motion.report('a', 2_000, 1, 20, 30);
  expect(drawn(motion, 'a', 500)).toEqual([0.25, 12.5]);
  expect(drawn(motion, 'a', 2_000)).toEqual([1, 20]);
});

test('before the first and after the last report a vehicle stands still', () => {
  const motion = new Motion();
  motion.report('a', 1_000, 0, 0, 30);
  motion.report('a', 2_000, 1, 1, 30);
  expect(drawn(motion, 'a', 0)).toEqual([0, 0]);
  expect(drawn(motion, 'a', 9_000)).toEqual([1, 1]);
});

test('a late or repeated report changes nothing', () => {
  const motion = new Motion();
  motion.report('a', 2_000, 1, 1, 30);
  motion.report('a', 1_000, 5, 5, 30);
  motion.report('a', 2_000, 6, 6, 30);
  expect(drawn(motion, 'a', 2_000)).toEqual([1, 1]);
});

test('after a long silence a vehicle moves to its new place at once', () => {
  const motion = new Motion();
  motion.report('a', 0, 0, 0, 30);
  motion.report('a', 20_001, 1, 1, 30);
  expect(drawn(motion, 'a', 10_000)).toEqual([1, 1]);
});

test('reports that wait to be drawn are limited per vehicle', () => {
  const motion = new Motion();
  for (let t = 0; t < 100; t += 1) motion.report('a', t * 1_000, t, 0, 30);
  expect(drawn(motion, 'a', 0)).toEqual([68, 0]);
  expect(drawn(motion, 'a', 98_500)).toEqual([98.5, 0]);
});

test('each vehicle has its place in the arrays, and its colour by its speed', () => {
  const motion = new Motion();
  motion.report('a', 0, 1, 2, 0);
  motion.report('b', 0, 3, 4, 60);
  motion.report('c', 0, 5, 6, null);
  motion.moveTo(0, (speed) => [speed ?? 150, 0, 255]);
  expect(motion.ids).toEqual(['a', 'b', 'c']);
  expect([...motion.positions]).toEqual([1, 2, 3, 4, 5, 6]);
  expect([...motion.colours]).toEqual([0, 0, 255, 255, 60, 0, 255, 255, 150, 0, 255, 255]);
});

test('removed vehicles are no longer drawn', () => {
  const motion = new Motion();
  motion.report('a', 0, 1, 2, 0);
  motion.report('b', 0, 3, 4, 0);
  motion.remove(['a', 'unknown']);
  motion.moveTo(0, grey);
  expect(motion.ids).toEqual(['b']);
  expect(motion.positionOf('a')).toBeNull();
});
