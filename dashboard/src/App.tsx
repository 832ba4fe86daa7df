import { lazy, Suspense } from 'preact/compat';
import { useState } from 'preact/hooks';
import type { Config } from './api/types';
import { Header } from './components/Header';
import { Warning } from './components/Warning';
import { useAccess } from './hooks/useAccess';
import { useApi } from './hooks/useApi';
import { useRoute } from './hooks/useRoute';
import { ApiPage } from './pages/ApiPage';
import { LandingPage } from './pages/LandingPage';
import { OperationsPage } from './pages/operations/OperationsPage';
import { SignInPage } from './pages/SignInPage';
import { TodayPage } from './pages/TodayPage';
import { currentTheme, saveTheme, type Theme } from './theme';

// The map and the charts are most of the code, so they are loaded when they are opened.
const MapPage = lazy(() => import('./pages/map/MapPage').then((module) => module.MapPage));
const AnalyticsPage = lazy(() => import('./pages/analytics/AnalyticsPage').then((module) => module.AnalyticsPage));

const PAGES = [
  { route: '#/map', name: 'Map' },
  { route: '#/operations', name: 'Operations' },
  { route: '#/analytics', name: 'Analytics' },
  { route: '#/today', name: 'Today' },
];

export function App() {
  const route = useRoute();
  const { data: config, error, reload } = useApi<Config>('/api/config', 60);
  const [keyRequired, onKey] = useAccess(config);
  const [theme, setTheme] = useState(currentTheme);
  const changeTheme = (chosen: Theme) => {
    saveTheme(chosen);
    setTheme(chosen);
  };
  const signIn = () => {
    onKey();
    reload();
  };
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <Header pages={PAGES} route={route} theme={theme} onTheme={changeTheme} />
      {!config && <Warning role="alert">{error}</Warning>}
      {keyRequired && <SignInPage onKey={signIn} />}
      {!keyRequired && config && <Page route={route} theme={theme} config={config} />}
    </>
  );
}

/** The page of a route. A new theme builds maps and charts anew, because they have its colours in them. */
function Page({ route, theme, config }: { route: string; theme: Theme; config: Config }) {
  return (
    <Suspense fallback={<p class="note">Loading…</p>}>
      {route === '#/map' && <MapPage key={theme} config={config} />}
      {route === '#/operations' && <OperationsPage config={config} />}
      {route === '#/analytics' && <AnalyticsPage key={theme} config={config} />}
      {route === '#/today' && <TodayPage config={config} />}
      {route === '#/api' && <ApiPage />}
      {route !== '#/api' && !PAGES.some((page) => page.route === route) && <LandingPage />}
    </Suspense>
  );
}
