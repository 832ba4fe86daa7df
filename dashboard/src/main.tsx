import { render } from 'preact';
import { lazy, Suspense } from 'preact/compat';
import { useEffect, useState } from 'preact/hooks';
import { type Config, key } from './api';
import { useApi, useLiveState } from './hooks';
import { live } from './live';
import './style.css';
import { Api } from './views/Api';
import { Landing } from './views/Landing';
import { Operations } from './views/Operations';
import { Today } from './views/Today';

// The map and the charts are most of the code: who reads the first page does not wait for them.
const MapPage = lazy(() => import('./views/MapPage').then((found) => found.MapPage));
const Analytics = lazy(() => import('./views/Analytics').then((found) => found.Analytics));

const PAGES: [string, string][] = [
  ['#/map', 'Map'],
  ['#/operations', 'Operations'],
  ['#/analytics', 'Analytics'],
  ['#/today', 'Today'],
];
const STATES: Record<string, string> = { connecting: 'connecting', live: 'live', lost: 'no connection' };
const THEME = 'city.theme';

function useRoute(): string {
  const [route, setRoute] = useState(location.hash || '#/');
  useEffect(() => {
    const changed = () => setRoute(location.hash || '#/');
    window.addEventListener('hashchange', changed);
    return () => window.removeEventListener('hashchange', changed);
  }, []);
  return route;
}

function App() {
  const route = useRoute();
  const { data: config, error, again } = useApi<Config>('/api/config', 60);
  const connection = useLiveState();
  const [wantsKey, setWantsKey] = useState(false);
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? 'light');
  useEffect(() => {
    const asked = () => setWantsKey(true);
    window.addEventListener('city:wants-key', asked);
    return () => window.removeEventListener('city:wants-key', asked);
  }, []);
  useEffect(() => {
    if (!config || (config.wants_key && !key.get())) {
      setWantsKey(Boolean(config?.wants_key));
      return;
    }
    live.start();
    return () => live.stop();
  }, [config?.wants_key, wantsKey]);
  const other = theme === 'dark' ? 'light' : 'dark';
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header>
        <a class="brand" href="#/">
          City
        </a>
        <nav aria-label="Views">
          {PAGES.map(([path, name]) => (
            <a key={path} href={path} aria-current={route === path ? 'page' : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <span class={`connection ${connection.state}`} role="status" title={connection.why}>
          {STATES[connection.state]}
        </span>
        <button
          type="button"
          class="link"
          onClick={() => {
            localStorage.setItem(THEME, other);
            document.documentElement.dataset.theme = other;
            setTheme(other);
          }}
        >
          {other === 'dark' ? 'Dark' : 'Light'}
        </button>
      </header>
      {error && !config && (
        <p class="warn" role="alert">
          {error}
        </p>
      )}
      {wantsKey && (
        <SignIn
          onKey={() => {
            setWantsKey(false);
            again();
          }}
        />
      )}
      {!wantsKey && config && (
        <Suspense fallback={<p class="note">loading…</p>}>
          {route === '#/map' && <MapPage key={theme} config={config} />}
          {route === '#/operations' && <Operations config={config} />}
          {route === '#/analytics' && <Analytics key={theme} config={config} />}
          {route === '#/today' && <Today config={config} />}
          {route === '#/api' && <Api />}
          {route !== '#/api' && !PAGES.some(([path]) => path === route) && <Landing />}
        </Suspense>
      )}
    </>
  );
}

function SignIn({ onKey }: { onKey: () => void }) {
  return (
    <main id="main" class="page">
      <h1>A key is needed</h1>
      <p>
        This server asks who you are. <code>city keys add NAME --role operator</code> makes a key; it is kept in this tab
        only.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          key.set(String(new FormData(event.currentTarget).get('key')).trim());
          onKey();
        }}
      >
        <label>
          Key <input name="key" type="password" autoComplete="off" required />
        </label>
        <button type="submit">Go on</button>
      </form>
    </main>
  );
}

const wanted = localStorage.getItem(THEME);
const system = window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
document.documentElement.dataset.theme = wanted ?? system;
const place = document.getElementById('app');
if (place) {
  place.replaceChildren();
  render(<App />, place);
}
