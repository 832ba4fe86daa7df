import { Table } from '../../components/Table';
import { formatNumber } from '../../format';
import type { OperationsResponse } from './types';

const NUMERIC = ['events/s', 'lag', 'p95 ms', 'rows', 'quarantined', 'late'];

export function Streams({ operations }: { operations: OperationsResponse | null }) {
  const streams = Object.entries(operations?.parts.stream?.streams ?? {});
  return (
    <section>
      <h2>Streams</h2>
      {streams.length === 0 ? (
        <p class="note">No stream is running. Dagster starts it within half a minute.</p>
      ) : (
        <Table columns={['topic', ...NUMERIC, 'last error']} numeric={NUMERIC}>
          {streams.map(([topic, stream]) => (
            <tr key={topic}>
              <th scope="row">{topic}</th>
              <td class="n">{formatNumber(stream.events_per_second, 1)}</td>
              <td class="n">{formatNumber(stream.lag)}</td>
              <td class="n">{formatNumber(stream.p95_ms)}</td>
              <td class="n">{formatNumber(operations?.bronze_rows[topic])}</td>
              <td class="n">{formatNumber(operations?.quarantined[topic])}</td>
              <td class="n">{formatNumber(stream.late)}</td>
              <td>{stream.last_error ?? ''}</td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}
