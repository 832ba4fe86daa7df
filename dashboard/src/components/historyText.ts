import type { HistoryStatus } from '../api/generated';

/** Whether the history of a new city is being made now, or will be in a moment. */
export const isBeingMade = (history: HistoryStatus | null | undefined): history is HistoryStatus =>
  history?.state === 'running' || history?.state === 'restarting';

/** How far the history is made, or why it does not go on. */
export function historyText({ state, days, percent, step, error }: HistoryStatus): string {
  const progress = `Making ${days} days of history: ${percent} %`;
  if (state === 'running') return `${progress}, ${step}`;
  return error ? `${progress}. A step failed and is tried again. ${error}` : `${progress}, continues in a moment`;
}
