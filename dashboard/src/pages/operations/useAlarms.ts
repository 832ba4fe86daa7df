import { useState } from 'preact/hooks';
import { errorMessage, post } from '../../api/client';
import type { Alarm, AlarmsResponse } from '../../api/types';
import { useApi } from '../../hooks/useApi';

interface AlarmsControl {
  /** Null until the first response. */
  alarms: Alarm[] | null;
  error: string;
  acknowledge: (alarm: Alarm) => Promise<boolean>;
  assign: (alarm: Alarm, assignee: string) => Promise<boolean>;
}

/** The open alarms, and their changes. A change resolves to whether the server has accepted it. */
export function useAlarms(): AlarmsControl {
  const { data, error, reload } = useApi<AlarmsResponse>('/api/alarms', 5);
  const [changeError, setChangeError] = useState('');
  const change = async (alarm: Alarm, action: string, body: unknown): Promise<boolean> => {
    const failure = await post(`/api/alarms/${alarm.id}/${action}`, body).then(() => '', errorMessage);
    setChangeError(failure);
    reload();
    return failure === '';
  };
  return {
    alarms: data?.alarms ?? null,
    error: changeError || error,
    acknowledge: (alarm) => change(alarm, 'acknowledge', { note: '' }),
    assign: (alarm, assignee) => change(alarm, 'assign', { to: assignee }),
  };
}
