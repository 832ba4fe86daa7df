import { useState } from 'preact/hooks';
import { Table } from '../../components/Table';
import { formatDateTime, formatNumber } from '../../format';
import { useInterval } from '../../hooks/useInterval';
import { live } from '../../live/LiveConnection';
import { summarizeScore } from './scoreSummary';

const UPDATE_MS = 5_000;
const MAX_SHOWN = 12;

/** The most recent scores of single events that need attention, the newest first. */
export function Scores({ timezone }: { timezone: string }) {
  const [scores, setScores] = useState(live.data.scores);
  useInterval(() => setScores(live.data.scores), UPDATE_MS);
  const notable = scores.flatMap((score) => {
    const text = summarizeScore(score);
    return text ? [{ ...text, id: score.id, model: score.model, timestamp: score.timestamp }] : [];
  });
  return (
    <section>
      <h2>Scores of single events</h2>
      <p class="note">
        {formatNumber(scores.length)} recent scores, {formatNumber(notable.length)} of them need attention.
      </p>
      {notable.length > 0 && (
        <Table columns={['time', 'model', 'subject', 'result']}>
          {notable
            .slice(-MAX_SHOWN)
            .reverse()
            .map(({ id, model, timestamp, subject, summary }) => (
              <tr key={id}>
                <td>{timestamp ? formatDateTime(timestamp, timezone) : ''}</td>
                <td>{model}</td>
                <td>{subject}</td>
                <td>{summary}</td>
              </tr>
            ))}
        </Table>
      )}
    </section>
  );
}
