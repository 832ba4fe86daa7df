import type { Config } from '../../api/types';
import { HistoryProgress } from '../../components/HistoryProgress';
import { Warning } from '../../components/Warning';
import { useApi } from '../../hooks/useApi';
import { useConnectionStatus } from '../../hooks/useConnectionStatus';
import { useTitle } from '../../hooks/useTitle';
import { Alarms } from './Alarms';
import { Checks } from './Checks';
import { Models } from './Models';
import { Parts } from './Parts';
import { Scores } from './Scores';
import { Streams } from './Streams';
import type { OperationsResponse } from './types';

export function OperationsPage({ config }: { config: Config }) {
  useTitle('Operations');
  const connection = useConnectionStatus();
  const { data, error } = useApi<OperationsResponse>('/api/operations', 5);
  return (
    <main id="main" class="page">
      <h1>Operations</h1>
      <Warning role="alert">{error}</Warning>
      {connection.state === 'lost' && <Warning>{connection.reason} Reconnecting.</Warning>}
      {data?.live_error && <Warning>The live data is not up to date: {data.live_error}</Warning>}
      <HistoryProgress history={data?.history} />
      <Alarms timezone={config.timezone} />
      <Streams operations={data} />
      <Parts parts={data?.parts ?? {}} />
      <Checks links={data?.links ?? null} />
      <Models drift={data?.drift ?? {}} timezone={config.timezone} />
      <Scores timezone={config.timezone} />
    </main>
  );
}
