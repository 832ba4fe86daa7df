import type { Stats } from '../api';
import { figure, useApi, useTitle } from '../hooks';

const FLOW = [
  ['Events', 'are checked against contracts as they come; what is broken is kept aside, with its reason.'],
  ['Tables', 'in bronze, silver and gold are built from them, and built again when they change.'],
  ['Features', 'are the same for learning and for serving, to the row.'],
  ['Models', 'are trained when there is a reason, judged on what they have not seen, and swapped while they serve.'],
  ['People', 'look at the map, ask for predictions, and look after what has gone wrong.'],
];

export function Landing() {
  useTitle('Welcome');
  const { data, error } = useApi<Stats>('/api/stats', 2);
  const figures: [string, string, string][] = [
    [figure(data?.events_per_second), 'events a second', 'from sensors, vehicles, machines and payments, each checked'],
    [figure(data?.events), 'events kept', 'in Delta tables, each exactly once'],
    [figure(data?.p95_ms), 'ms', 'from an event to its table, for 95 of 100'],
    [figure(data?.live.vehicles), 'vehicles', 'on the map now'],
    [figure(data?.models_serving), data?.models_serving === 1 ? 'model' : 'models', 'in service, trained and judged by itself'],
    [figure(data?.predictions), 'predictions', 'given by this server, each recorded'],
  ];
  return (
    <main id="main" class="landing">
      <h1>The city, as it is now</h1>
      <p class="lead">
        City brings a city's real-time data and its machine learning onto one platform: what sensors, vehicles and machines
        say becomes tables, features, models and predictions, and what is wrong becomes an alarm that somebody owns.
      </p>
      <p>
        <a class="button" href="#/map">
          Open the dashboard
        </a>
        <a href="/docs">The API</a>
      </p>
      {error && (
        <p class="warn" role="status">
          {error}
        </p>
      )}
      <dl class="figures" aria-label="The platform's own figures, now">
        {figures.map(([value, unit, means]) => (
          <div key={means}>
            <dt>
              <b>{value}</b> {unit}
            </dt>
            <dd>{means}</dd>
          </div>
        ))}
      </dl>
      <ol class="flow" aria-label="How it goes">
        {FLOW.map(([what, means]) => (
          <li key={what}>
            <b>{what}</b> <span>{means}</span>
          </li>
        ))}
      </ol>
    </main>
  );
}
