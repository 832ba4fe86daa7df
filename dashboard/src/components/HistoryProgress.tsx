import type { HistoryStatus } from '../api/generated';
import { historyText, isBeingMade } from './historyText';

/** A bar that shows how far the history of a new city is made. It is absent when nothing makes a history. */
export function HistoryProgress({ history }: { history: HistoryStatus | null | undefined }) {
  if (!isBeingMade(history)) return null;
  return (
    <div class="history">
      <progress max={100} value={history.percent} aria-label="History made, in percent" />
      <p class={history.error ? 'warn' : 'note'}>{historyText(history)}</p>
    </div>
  );
}
