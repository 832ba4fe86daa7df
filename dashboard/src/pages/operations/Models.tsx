import { Table } from '../../components/Table';
import { Warning } from '../../components/Warning';
import { formatDateTime, formatNumber } from '../../format';
import { useApi } from '../../hooks/useApi';
import type { Model, ModelsResponse, OperationsResponse } from './types';

const COLUMNS = ['model', 'champion', 'held-out score', 'naive score', 'trained', 'experiment', 'feature drift'];
const NUMERIC = ['held-out score', 'naive score', 'feature drift'];

interface ModelsProps {
  drift: OperationsResponse['drift'];
  timezone: string;
}

export function Models({ drift, timezone }: ModelsProps) {
  const { data, error } = useApi<ModelsResponse>('/models', 15);
  return (
    <section>
      <h2>Models</h2>
      <Warning>{error}</Warning>
      <Table columns={COLUMNS} numeric={NUMERIC}>
        {data?.models.map((model) => (
          <ModelRow key={model.name} model={model} drift={drift[model.features]} timezone={timezone} />
        ))}
      </Table>
    </section>
  );
}

interface ModelRowProps {
  model: Model;
  /** The drift of each of the model's features; undefined before the first comparison. */
  drift: Record<string, number> | undefined;
  timezone: string;
}

function ModelRow({ model, drift, timezone }: ModelRowProps) {
  const { measure, experiment } = model;
  const champion = model.versions.find(({ version }) => version === model.serving);
  return (
    <tr>
      <th scope="row" title={model.means}>
        {model.name}
      </th>
      <td>{champion ? `version ${champion.version}` : 'none yet'}</td>
      <td class="n">{champion ? `${measure} ${formatNumber(champion.metrics[`model_${measure}`], 3)}` : ''}</td>
      <td class="n">{champion ? formatNumber(champion.metrics[`naive_${measure}`], 3) : ''}</td>
      <td>{champion?.trained_at ? formatDateTime(champion.trained_at, timezone) : ''}</td>
      <td>
        {experiment
          ? `${experiment.kind} of version ${experiment.version}, ${formatNumber(experiment.share * 100)} %`
          : ''}
      </td>
      <td class="n">{drift ? formatNumber(Math.max(0, ...Object.values(drift)), 3) : 'not compared yet'}</td>
    </tr>
  );
}
