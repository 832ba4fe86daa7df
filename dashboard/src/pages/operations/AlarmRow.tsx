import { useState } from 'preact/hooks';
import type { Alarm } from '../../api/types';
import { formatDateTime } from '../../format';

interface AlarmRowProps {
  alarm: Alarm;
  timezone: string;
  onAcknowledge: (alarm: Alarm) => Promise<boolean>;
  onAssign: (alarm: Alarm, assignee: string) => Promise<boolean>;
}

export function AlarmRow({ alarm, timezone, onAcknowledge, onAssign }: AlarmRowProps) {
  const state = [alarm.state, alarm.flapping && 'flapping', alarm.silenced && 'silenced'].filter(Boolean).join(', ');
  return (
    <tr data-alarm={alarm.id}>
      <td>
        <span class={`state ${alarm.severity}`}>{alarm.severity}</span>
      </td>
      <td>{alarm.title}</td>
      <td>{formatDateTime(alarm.first_at, timezone)}</td>
      <td class="n">{alarm.count}</td>
      <td>{state}</td>
      <td>
        <Assignee alarm={alarm} onAssign={onAssign} />
      </td>
      <td>
        {!alarm.acknowledged && (
          <button
            type="button"
            aria-label={`Acknowledge alarm ${alarm.id}: ${alarm.title}`}
            onClick={() => onAcknowledge(alarm)}
          >
            Acknowledge
          </button>
        )}
      </td>
    </tr>
  );
}

/** The assignee as a button, which opens a form for another one. */
function Assignee({ alarm, onAssign }: Pick<AlarmRowProps, 'alarm' | 'onAssign'>) {
  const [editing, setEditing] = useState(false);
  if (!editing) {
    return (
      <button type="button" class="link" onClick={() => setEditing(true)}>
        {alarm.assignee ?? 'assign'}
      </button>
    );
  }
  const save = async (form: HTMLFormElement) => {
    const accepted = await onAssign(alarm, String(new FormData(form).get('assignee')));
    if (accepted) setEditing(false);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void save(event.currentTarget);
      }}
    >
      <input name="assignee" aria-label={`Assignee of alarm ${alarm.id}`} required maxLength={100} autoFocus />
      <button type="submit">Save</button>
    </form>
  );
}
