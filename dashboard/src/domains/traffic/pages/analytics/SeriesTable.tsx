import { Table } from '../../../../components/Table';
import { formatDateTime, formatNumber } from '../../../../format';
import type { SeriesRow } from './series';

const NUMERIC = ['mean speed, km/h', 'vehicles'];

/** The figures of both charts as a table. */
export function SeriesTable({ rows, timezone }: { rows: SeriesRow[]; timezone: string }) {
  return (
    <Table columns={['time', ...NUMERIC]} numeric={NUMERIC}>
      {rows
        .filter(([, speed]) => speed !== null)
        .map(([t, speed, vehicles]) => (
          <tr key={t}>
            <th scope="row">{formatDateTime(t, timezone)}</th>
            <td class="n">{formatNumber(speed, 1)}</td>
            <td class="n">{formatNumber(vehicles)}</td>
          </tr>
        ))}
    </Table>
  );
}
