import type { TodayResponse } from '../api/generated';
import type { Alarm, AlarmsResponse, Config, Stats } from '../api/types';
import { Warning } from '../components/Warning';
import { formatDateTime, formatNumber } from '../format';
import { useApi } from '../hooks/useApi';
import { useTitle } from '../hooks/useTitle';

export function TodayPage({ config }: { config: Config }) {
  useTitle('Today');
  const { data, error } = useApi<TodayResponse>('/api/today', 60);
  const facts = data?.facts ?? [];
  return (
    <main id="main" class="page today">
      <h1>The city today</h1>
      <p class="note">{data ? formatDateTime(data.at * 1000, config.timezone) : ''}</p>
      <Warning role="alert">{error}</Warning>
      <dl class="figures">
        {facts
          .filter(({ value }) => value !== null)
          .map(({ name, value, unit, label, before }) => (
            <div key={name}>
              <dt>
                <b>{formatNumber(value, 1)}</b> {unit}
              </dt>
              <dd>
                {label}
                {before !== null ? `; a week ago ${formatNumber(before, 1)}` : ''}
              </dd>
            </div>
          ))}
      </dl>
      {facts.map(({ name, sentence }) => sentence && <p key={name}>{sentence}</p>)}
      <PlatformSummary />
      <p class="no-print">
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
      </p>
    </main>
  );
}

function PlatformSummary() {
  const { data: stats } = useApi<Stats>('/api/stats', 30);
  const { data } = useApi<AlarmsResponse>('/api/alarms', 30);
  const active = data?.alarms.filter((alarm) => alarm.active) ?? [];
  return (
    <p>
      {alarmSummary(active)} {stats && storageSummary(stats)}
    </p>
  );
}

function alarmSummary(active: Alarm[]): string {
  if (active.length === 0) return 'No alarm is active.';
  const severe = active.filter(({ severity }) => severity === 'critical' || severity === 'error').length;
  return `${active.length} ${active.length === 1 ? 'alarm is' : 'alarms are'} active, ${severe} of them critical or error.`;
}

function storageSummary({ events, quarantined, models_serving: models }: Stats): string {
  return [
    `${formatNumber(events)} events are stored.`,
    `${formatNumber(quarantined)} were quarantined, each with a reason.`,
    `${formatNumber(models)} ${models === 1 ? 'model serves' : 'models serve'}.`,
  ].join(' ');
}
