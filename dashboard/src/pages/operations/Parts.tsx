import { Table } from '../../components/Table';
import { formatNumber } from '../../format';
import type { Part } from './types';

export function Parts({ parts }: { parts: Record<string, Part> }) {
  return (
    <section>
      <h2>Parts</h2>
      <Table columns={['part', 'state', 'address', 'events/s', 'last error']} numeric={['events/s']}>
        {Object.entries(parts).map(([name, part]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>
              <span class={`state ${part.state}`}>{part.state}</span>
            </td>
            <td>{part.address}</td>
            <td class="n">{formatNumber(part.events_per_second, 1)}</td>
            <td>{part.last_error ?? ''}</td>
          </tr>
        ))}
      </Table>
    </section>
  );
}
