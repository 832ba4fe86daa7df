import { Table } from '../../components/Table';
import { Warning } from '../../components/Warning';
import { useApi } from '../../hooks/useApi';
import type { ChecksResponse, OperationsResponse } from './types';

type Links = OperationsResponse['links'];

/** How many asset checks pass, and those that fail. */
export function Checks({ links }: { links: Links | null }) {
  const { data: checks } = useApi<ChecksResponse>('/api/checks', 15);
  return (
    <section>
      <h2>Checks</h2>
      <Warning>{checks?.error}</Warning>
      <p>
        {checks ? `${checks.passed} passed, ${checks.failed.length} failed.` : 'Loading…'}{' '}
        <CheckLinks links={links} />
      </p>
      {checks && checks.failed.length > 0 && (
        <Table columns={['asset', 'check', 'severity', 'description']}>
          {checks.failed.map((check) => (
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
  );
}

function CheckLinks({ links }: { links: Links | null }) {
  return (
    <>
      <a href={links?.dagster}>Dagster</a>
      {links?.mlflow && (
        <>
          {' · '}
          <a href={links.mlflow}>MLflow</a>
        </>
      )}
      {links?.data_docs.map((page) => (
        <span key={page}>
          {' · '}
          <a href={page}>Data Docs: {page.split('/')[2]}</a>
        </span>
      ))}
    </>
  );
}
