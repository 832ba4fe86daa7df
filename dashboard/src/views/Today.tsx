import type { Config, Stats } from '../api';
import { figure, moment, useApi, useTitle } from '../hooks';

interface Fact {
  name: string;
  sentence: string;
  label: string;
  value: number | null;
  unit: string;
  before: number | null;
}

export function Today({ config }: { config: Config }) {
  useTitle('Today');
  const { data, error } = useApi<{ at: number; facts: Fact[] }>('/api/today', 60);
  const stats = useApi<Stats>('/api/stats', 30);
  const alarms = useApi<{ alarms: { severity: string; active: boolean }[] }>('/api/alarms', 30);
  const open = alarms.data?.alarms.filter((alarm) => alarm.active) ?? [];
  const grave = open.filter((alarm) => alarm.severity === 'critical' || alarm.severity === 'error').length;
  return (
    <main id="main" class="page today">
      <h1>How the city did today</h1>
      <p class="note">{data ? moment(data.at * 1000, config.timezone) : ''}</p>
      {error && (
        <p class="warn" role="alert">
          {error}
        </p>
      )}
      <dl class="figures">
        {data?.facts
          .filter((fact) => fact.value !== null)
          .map((fact) => (
            <div key={fact.name}>
              <dt>
                <b>{figure(fact.value, 1)}</b> {fact.unit}
              </dt>
              <dd>
                {fact.label}
                {fact.before !== null ? `; a week ago ${figure(fact.before, 1)}` : ''}
              </dd>
            </div>
          ))}
      </dl>
      {data?.facts.filter((fact) => fact.sentence).map((fact) => <p key={fact.name}>{fact.sentence}</p>)}
      <p>
        {open.length === 0
          ? 'No alarm is active.'
          : `${open.length} ${open.length === 1 ? 'alarm is' : 'alarms are'} active, ${grave} of them grave.`}{' '}
        {stats.data &&
          `${figure(stats.data.events)} events are kept; ${figure(stats.data.quarantined)} were rejected, each with its reason. ` +
            `${figure(stats.data.models_serving)} ${stats.data.models_serving === 1 ? 'model serves' : 'models serve'}.`}
      </p>
      <p class="no-print">
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
      </p>
    </main>
  );
}
