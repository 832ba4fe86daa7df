import { Warning } from '../components/Warning';
import { formatNumber } from '../format';
import { useApi } from '../hooks/useApi';
import { useTitle } from '../hooks/useTitle';

interface MediaType {
  examples?: Record<string, { value: unknown }>;
}

interface Operation {
  summary?: string;
  description?: string;
  tags?: string[];
  parameters?: { name: string; in: string; required?: boolean; description?: string }[];
  requestBody?: { content: Record<string, MediaType> };
}

interface OpenApiDocument {
  info: { description?: string };
  paths: Record<string, Record<string, Operation>>;
}

type Route = Operation & { path: string; method: string };

const tagOf = ({ tags }: Operation) => tags?.[0] ?? 'others';
const capitalize = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** The server's OpenAPI document as a page. It needs nothing from other servers, so it works without the internet. */
export function ApiPage() {
  useTitle('API');
  const { data, error } = useApi<OpenApiDocument>('/openapi.json', 600);
  const routes: Route[] = Object.entries(data?.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );
  const tags = [...new Set(routes.map(tagOf))];
  return (
    <main id="main" class="page">
      <h1>The API</h1>
      <p style={{ whiteSpace: 'pre-line' }}>{data?.info.description}</p>
      <p class="note">
        {formatNumber(routes.length)} operations. Programs can read <a href="/openapi.json">openapi.json</a>.
      </p>
      <Warning>{error}</Warning>
      {tags.map((tag) => (
        <section key={tag}>
          <h2>{capitalize(tag)}</h2>
          {routes
            .filter((route) => tagOf(route) === tag)
            .map((route) => (
              <RouteDetails key={route.method + route.path} {...route} />
            ))}
        </section>
      ))}
    </main>
  );
}

function RouteDetails(route: Route) {
  const { method, path, summary, description, parameters = [] } = route;
  return (
    <details>
      <summary>
        <code>
          {method} {path}
        </code>{' '}
        {summary}
      </summary>
      {description && <p>{description}</p>}
      {parameters.length > 0 && (
        <ul>
          {parameters.map((parameter) => (
            <li key={parameter.name}>
              <code>{parameter.name}</code> ({parameter.in}
              {parameter.required ? ', required' : ''}) {parameter.description}
            </li>
          ))}
        </ul>
      )}
      <pre>{curlCommand(route)}</pre>
    </details>
  );
}

function curlCommand({ method, path, requestBody }: Route): string {
  const mediaType = Object.values(requestBody?.content ?? {})[0];
  const example = Object.values(mediaType?.examples ?? {})[0]?.value;
  const body = example ? ` \\\n  -H 'content-type: application/json' \\\n  -d '${JSON.stringify(example)}'` : '';
  return `curl${method === 'GET' ? '' : ` -X ${method}`} '${location.origin}${path}'${body}`;
}
