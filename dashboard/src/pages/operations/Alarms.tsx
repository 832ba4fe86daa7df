import { Table } from '../../components/Table';
import { Warning } from '../../components/Warning';
import { AlarmRow } from './AlarmRow';
import { useAlarms } from './useAlarms';

const COLUMNS = ['severity', 'alarm', 'since', 'count', 'state', 'assignee', ''];

/** The open alarms, which can be assigned and acknowledged here. */
export function Alarms({ timezone }: { timezone: string }) {
  const { alarms, error, acknowledge, assign } = useAlarms();
  return (
    <section>
      <h2>Alarms</h2>
      <Warning role="alert">{error}</Warning>
      {alarms?.length === 0 && <p class="note">No alarm is open.</p>}
      {alarms && alarms.length > 0 && (
        <Table columns={COLUMNS} numeric={['count']}>
          {alarms.map((alarm) => (
            <AlarmRow key={alarm.id} alarm={alarm} timezone={timezone} onAcknowledge={acknowledge} onAssign={assign} />
          ))}
        </Table>
      )}
    </section>
  );
}
