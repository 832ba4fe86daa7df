const FIRST_MS = 500;
const LONGEST_MS = 10_000;

/**
 * Milliseconds to wait before the next attempt, after `failures` (1 or more) failures in a row. Doubles from half a
 * second to ten seconds. The 30 % of jitter keep many clients from retrying at the same moment.
 */
export function retryDelay(failures: number, random = Math.random()): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1)) * (0.7 + 0.6 * random);
}
