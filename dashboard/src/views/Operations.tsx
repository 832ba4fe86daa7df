import { useState } from 'preact/hooks';
import { type Config, post } from '../api';
import { figure, moment, useApi, useLiveState, useTitle } from '../hooks';
import { live } from '../live';

interface Part {
  address: string;
  state: string;
  events_per_second: number | null;
  lag: number | null;
  p95_ms: number | null;
  last_error: string | null;
  streams?: Record<string, Stream>;
}

interface Stream {
  rows: number;
  quarantined: number;
  late: number;
  lag: number;
  events_per_second: number;
  p95_ms: number | null;
  last_error: string | null;
  sinks_behind: Record<string, number>;
}

interface OperationsAnswer {
  parts: Record<string, Part>;
  bronze_rows: Record<string, number>;
  quarantined: Record<string, number>;
  live_error: string | null;
  drift: Record<string, Record<string, number>>;
  links: { dagster: string; mlflow: string | null; data_docs: string[] };
}

interface Checks {
  error: string | null;
  passed: number;
  failed: { asset: string; check: string; severity: string; says: string; link: string }[];
}

interface Alarm {
  id: number;
  severity: string;
  title: string;
  state: string;
  acknowledged: boolean;
  flapping: boolean;
  silenced: boolean;
  assignee: string | null;
  count: number;
  first_at: string;
}

interface Model {
  name: string;
  means: string;
  measure: string;
  features: string;
  serving: number | null;
  experiment: { kind: string; version: number; share: number } | null;
  versions: { version: number; aliases: string[]; trained_at: string | null; metrics: Record<string, number> }[];
}

export function Operations({ config }: { config: Config }) {
  useTitle('Operations');
  const connection = useLiveState();
  const { data, error } = useApi<OperationsAnswer>('/api/operations', 5);
  const { data: checks } = useApi<Checks>('/api/checks', 15);
  const models = useApi<{ models: Model[] }>('/models', 15);
  const parts = Object.entries(data?.parts ?? {});
  const streams = Object.entries(data?.parts.stream?.streams ?? {});
  return (
    <main id="main" class="page">
      <h1>Operations</h1>
      {error && (
        <p class="warn" role="alert">
          {error}
        </p>
      )}
      {connection.state === 'lost' && <p class="warn">{connection.why} Trying again.</p>}
      {data?.live_error && <p class="warn">The live picture: {data.live_error}</p>}
      <Alarms config={config} />
      <section>
        <h2>Streams</h2>
        {streams.length === 0 ? (
          <p class="note">No stream runs yet: Dagster starts it within half a minute.</p>
        ) : (
          <Table
            head={['topic', 'events/s', 'lag', 'p95 ms', 'rows', 'quarantined', 'late', 'says']}
            numbers={['events/s', 'lag', 'p95 ms', 'rows', 'quarantined', 'late']}
          >
            {streams.map(([topic, stream]) => (
              <tr key={topic}>
                <th scope="row">{topic}</th>
                <td class="n">{figure(stream.events_per_second, 1)}</td>
                <td class="n">{figure(stream.lag)}</td>
                <td class="n">{figure(stream.p95_ms)}</td>
                <td class="n">{figure(data?.bronze_rows[topic])}</td>
                <td class="n">{figure(data?.quarantined[topic])}</td>
                <td class="n">{figure(stream.late)}</td>
                <td>{stream.last_error ?? ''}</td>
              </tr>
            ))}
          </Table>
        )}
      </section>
      <section>
        <h2>Parts</h2>
        <Table head={['part', 'state', 'address', 'events/s', 'says']} numbers={['events/s']}>
          {parts.map(([name, part]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>
                <span class={`state ${part.state}`}>{part.state}</span>
              </td>
              <td>{part.address}</td>
              <td class="n">{figure(part.events_per_second, 1)}</td>
              <td>{part.last_error ?? ''}</td>
            </tr>
          ))}
        </Table>
      </section>
      <section>
        <h2>Checks</h2>
        {checks?.error && <p class="warn">{checks.error}</p>}
        <p>
          {checks ? `${checks.passed} pass, ${checks.failed.length} fail.` : 'Asking…'}{' '}
          <a href={data?.links.dagster}>Dagster</a>
          {data?.links.mlflow && (
            <>
              {' · '}
              <a href={data.links.mlflow}>MLflow</a>
            </>
          )}
          {data?.links.data_docs.map((page) => (
            <span key={page}>
              {' · '}
              <a href={page}>Data Docs: {page.split('/')[2]}</a>
            </span>
          ))}
        </p>
        {(checks?.failed.length ?? 0) > 0 && (
          <Table head={['asset', 'check', 'severity', 'says']}>
            {checks?.failed.map((check) => (
              <tr key={check.asset + check.check}>
                <th scope="row">
                  <a href={check.link}>{check.asset}</a>
                </th>
                <td>{check.check}</td>
                <td>{check.severity.toLowerCase()}</td>
                <td>{check.says}</td>
              </tr>
            ))}
          </Table>
        )}
      </section>
      <section>
        <h2>Models</h2>
        {models.error && <p class="warn">{models.error}</p>}
        <Table
          head={['model', 'serves', 'held out', 'without a model', 'trained', 'experiment', 'drift of its features']}
          numbers={['held out', 'without a model', 'drift of its features']}
        >
          {models.data?.models.map((model) => {
            const champion = model.versions.find((version) => version.version === model.serving);
            const drift = Math.max(0, ...Object.values(data?.drift[model.features] ?? {}));
            return (
              <tr key={model.name}>
                <th scope="row" title={model.means}>
                  {model.name}
                </th>
                <td>{champion ? `version ${champion.version}` : 'none yet'}</td>
                <td class="n">
                  {champion ? `${model.measure} ${figure(champion.metrics[`model_${model.measure}`], 3)}` : ''}
                </td>
                <td class="n">{champion ? figure(champion.metrics[`naive_${model.measure}`], 3) : ''}</td>
                <td>{champion?.trained_at ? moment(champion.trained_at, config.timezone) : ''}</td>
                <td>
                  {model.experiment
                    ? `${model.experiment.kind} of version ${model.experiment.version}, ${figure(model.experiment.share * 100)} %`
                    : ''}
                </td>
                <td class="n">{data?.drift[model.features] ? figure(drift, 3) : 'not compared yet'}</td>
              </tr>
            );
          })}
        </Table>
      </section>
      <Scores config={config} />
    </main>
  );
}

function Alarms({ config }: { config: Config }) {
  const { data, error, again } = useApi<{ alarms: Alarm[] }>('/api/alarms', 5);
  const [problem, setProblem] = useState('');
  const [assigning, setAssigning] = useState<number | null>(null);
  const change = async (path: string, body: unknown) => {
    try {
      await post(path, body);
      setProblem('');
      setAssigning(null);
    } catch (refused) {
      setProblem(refused instanceof Error ? refused.message : String(refused));
    }
    again();
  };
  return (
    <section>
      <h2>Alarms</h2>
      {(error || problem) && (
        <p class="warn" role="alert">
          {problem || error}
        </p>
      )}
      {data?.alarms.length === 0 && <p class="note">None is open.</p>}
      {(data?.alarms.length ?? 0) > 0 && (
        <Table head={['severity', 'what', 'since', 'times', 'state', 'who', '']} numbers={['times']}>
          {data?.alarms.map((alarm) => (
            <tr key={alarm.id} data-alarm={alarm.id}>
              <td>
                <span class={`state ${alarm.severity}`}>{alarm.severity}</span>
              </td>
              <td>{alarm.title}</td>
              <td>{moment(alarm.first_at, config.timezone)}</td>
              <td class="n">{alarm.count}</td>
              <td>{[alarm.state, alarm.flapping && 'flapping', alarm.silenced && 'silenced'].filter(Boolean).join(', ')}</td>
              <td>
                {assigning === alarm.id ? (
                  <form
                    onSubmit={(event) => {
                      event.preventDefault();
                      const to = new FormData(event.currentTarget).get('to');
                      void change(`/api/alarms/${alarm.id}/assign`, { to });
                    }}
                  >
                    <input name="to" aria-label={`Who looks after alarm ${alarm.id}`} required maxLength={100} autoFocus />
                    <button type="submit">Save</button>
                  </form>
                ) : (
                  <button type="button" class="link" onClick={() => setAssigning(alarm.id)}>
                    {alarm.assignee ?? 'assign'}
                  </button>
                )}
              </td>
              <td>
                {!alarm.acknowledged && (
                  <button
                    type="button"
                    aria-label={`Acknowledge alarm ${alarm.id}: ${alarm.title}`}
                    onClick={() => change(`/api/alarms/${alarm.id}/acknowledge`, { note: '' })}
                  >
                    Acknowledge
                  </button>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}

function Scores({ config }: { config: Config }) {
  useApi('/health/live', 5); // draws again now and then
  const worth = live.scores.filter((score) => score.is_anomaly || score.is_fraud || score.priority === 'critical');
  return (
    <section>
      <h2>What models say of single events</h2>
      <p class="note">
        {figure(live.scores.length)} of late; worth a look: {figure(worth.length)}.
      </p>
      {worth.length > 0 && (
        <Table head={['when', 'model', 'about', 'says']}>
          {worth
            .slice(-12)
            .reverse()
            .map((score) => (
              <tr key={score.id}>
                <td>{score.timestamp ? moment(String(score.timestamp), config.timezone) : ''}</td>
                <td>{score.model}</td>
                <td>{String(score.machine_id ?? score.card ?? '')}</td>
                <td>
                  {score.is_anomaly
                    ? `anomaly, score ${figure(score.anomaly_score as number, 2)}`
                    : score.is_fraud
                      ? `fraud, probability ${figure(score.fraud_probability as number, 2)}`
                      : String(score.recommended_action ?? '')}
                </td>
              </tr>
            ))}
        </Table>
      )}
    </section>
  );
}

/** `numbers` are those of the columns that stand to the right. */
export function Table(props: { head: string[]; numbers?: string[]; children: preact.ComponentChildren }) {
  const { head, numbers = [], children } = props;
  return (
    <div class="scroll" tabIndex={0}>
      <table>
        <thead>
          <tr>
            {head.map((name) => (
              <th key={name} scope="col" class={numbers.includes(name) ? 'n' : ''}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
