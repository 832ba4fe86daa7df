import { expect, test } from 'vitest';
import { LiveState } from '../../../../src/live/LiveState';
import { liveCells } from '../../../../src/domains/traffic/map/cells';

function stateOfCells(): LiveState {
  const state = new LiveState();
  const columns = ['cell', 't', 'vehicle_count', 'speed_mean', 'speed_15'];
  const rows: [string, number, number, number, number | null][] = [
    ['slow', 1, 4, 8, 30],
    ['fast', 1, 2, 50, null],
  ];
  const layers = { cells: { columns, means: 'Cells.', rows } };
  state.apply({ type: 'snapshot', epoch: 'a', seq: 1, at: 0, layers }, 0);
  return state;
}

test('the cells of now have their measured speed', () => {
  expect(liveCells(stateOfCells(), 0)).toEqual([
    { cell: 'slow', vehicles: 4, speed: 8, level: 'high' },
    { cell: 'fast', vehicles: 2, speed: 50, level: 'low' },
  ]);
});

test('the cells of later have their predicted speed, which may be unknown', () => {
  const summary = liveCells(stateOfCells(), 15).map(({ speed, level }) => [speed, level]);
  expect(summary).toEqual([[30, 'low'], [null, null]]);
});

test('a column that the server does not send is unknown', () => {
  expect(liveCells(stateOfCells(), 5).map(({ speed }) => speed)).toEqual([null, null]);
});
