import type { Stats } from '../api/types';
import { HistoryProgress } from '../components/HistoryProgress';
import { Warning } from '../components/Warning';
import { domains } from '../domains';
import type { Figure } from '../domains/domain';
import { formatNumber } from '../format';
import { useApi } from '../hooks/useApi';
import { useTitle } from '../hooks/useTitle';

const STEPS = [
  {
    name: 'Events',
    description: 'are checked against contracts as they arrive. Invalid events are quarantined with a reason.',
  },
  { name: 'Tables', description: 'in bronze, silver and gold are built from events, and rebuilt when events change.' },
  { name: 'Features', description: 'are the same in training and in serving, row by row.' },
  {
    name: 'Models',
    description: 'are trained when there is a reason, evaluated on held-out data, and replaced while they serve.',
  },
  { name: 'People', description: 'use the map, request predictions, and handle alarms.' },
];

/** What sends events, as one text. */
const SOURCES = new Intl.ListFormat('en-GB').format(domains.map(({ sources }) => sources));

function figures(stats: Stats | null): Figure[] {
  return [
    {
      value: formatNumber(stats?.events_per_second),
      unit: 'events per second',
      description: `from ${SOURCES}, each checked`,
    },
    { value: formatNumber(stats?.events), unit: 'events stored', description: 'in Delta tables, each exactly once' },
    { value: formatNumber(stats?.p95_ms), unit: 'ms', description: 'from an event to its table (p95)' },
    ...domains.flatMap((domain) => domain.figures?.(stats) ?? []),
    {
      value: formatNumber(stats?.models_serving),
      unit: stats?.models_serving === 1 ? 'model serving' : 'models serving',
      description: 'trained and evaluated automatically',
    },
    { value: formatNumber(stats?.predictions), unit: 'predictions', description: 'by this server, each recorded' },
  ];
}

/** The welcome page; `start` is the route of the first page of the dashboard. */
export function LandingPage({ start }: { start: string }) {
  useTitle('Welcome');
  const { data, error } = useApi<Stats>('/api/stats', 2);
  return (
    <main id="main" class="landing">
      <h1>The city, as it is now</h1>
      <p class="lead">
        City is one platform for a city's real-time data and machine learning. Events from {SOURCES} become tables,
        features, models and predictions. Faults become alarms that people own.
      </p>
      <p>
        <a class="button" href={start}>
          Open the dashboard
        </a>
        <a href="/docs">The API</a>
      </p>
      <Warning role="status">{error}</Warning>
      <HistoryProgress history={data?.history} />
      <dl class="figures" aria-label="Current figures of the platform">
        {figures(data).map(({ value, unit, description }) => (
          <div key={description}>
            <dt>
              <b>{value}</b> {unit}
            </dt>
            <dd>{description}</dd>
          </div>
        ))}
      </dl>
      <ol class="flow" aria-label="How the platform works">
        {STEPS.map(({ name, description }) => (
          <li key={name}>
            <b>{name}</b> <span>{description}</span>
          </li>
        ))}
      </ol>
    </main>
  );
}
