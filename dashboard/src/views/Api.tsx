import { figure, useApi, useTitle } from '../hooks';

interface Media {
  schema?: unknown;
  examples?: Record<string, { value: unknown }>;
}

interface Operation {
  summary?: string;
  description?: string;
  tags?: string[];
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: unknown }[];
  requestBody?: { content: Record<string, Media> };
}

interface OpenApi {
  info: { description?: string };
  paths: Record<string, Record<string, Operation>>;
}

/** The server's OpenAPI document as a page: nothing of it comes from elsewhere, so it is there without the internet. */
export function Api() {
  useTitle('API');
  const { data, error } = useApi<OpenApi>('/openapi.json', 600);
  const operations = Object.entries(data?.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );
  const tags = [...new Set(operations.map(({ tags: of }) => of?.[0] ?? 'others'))];
  return (
    <main id="main" class="page">
      <h1>The API</h1>
      <p style={{ whiteSpace: 'pre-line' }}>{data?.info.description}</p>
      <p class="note">
        {figure(operations.length)} operations; for programs: <a href="/openapi.json">openapi.json</a>.
      </p>
      {error && <p class="warn">{error}</p>}
      {tags.map((tag) => (
        <section key={tag}>
          <h2>{tag[0]?.toUpperCase() + tag.slice(1)}</h2>
          {operations
            .filter(({ tags: of }) => (of?.[0] ?? 'others') === tag)
            .map((operation) => (
              <Described key={operation.method + operation.path} {...operation} />
            ))}
        </section>
      ))}
    </main>
  );
}

function Described(operation: Operation & { path: string; method: string }) {
  const media = Object.entries(operation.requestBody?.content ?? {})[0];
  const example = Object.values(media?.[1].examples ?? {})[0]?.value;
  const body = example ? ` \\\n  -H 'content-type: application/json' \\\n  -d '${JSON.stringify(example)}'` : '';
  const method = operation.method === 'GET' ? '' : ` -X ${operation.method}`;
  return (
    <details>
      <summary>
        <code>
          {operation.method} {operation.path}
        </code>{' '}
        {operation.summary}
      </summary>
      {operation.description && <p>{operation.description}</p>}
      {operation.parameters && operation.parameters.length > 0 && (
        <ul>
          {operation.parameters.map((parameter) => (
            <li key={parameter.name}>
              <code>{parameter.name}</code> ({parameter.in}
              {parameter.required ? ', needed' : ''}) {parameter.description}
            </li>
          ))}
        </ul>
      )}
      <pre>{`curl${method} '${location.origin}${operation.path}'${body}`}</pre>
    </details>
  );
}
