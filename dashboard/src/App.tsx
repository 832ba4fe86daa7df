import type { FunctionComponent } from 'preact';
import { lazy, Suspense } from 'preact/compat';
import { useState } from 'preact/hooks';
import type { Config } from './api/types';
import { Header } from './components/Header';
import { Warning } from './components/Warning';
import { domains } from './domains';
import type { PageProps } from './domains/domain';
import { useAccess } from './hooks/useAccess';
import { useApi } from './hooks/useApi';
import { useRoute } from './hooks/useRoute';
import { ApiPage } from './pages/ApiPage';
import { LandingPage } from './pages/LandingPage';
import { OperationsPage } from './pages/operations/OperationsPage';
import { SignInPage } from './pages/SignInPage';
import { TodayPage } from './pages/TodayPage';
import { currentTheme, saveTheme, type Theme } from './theme';

interface Page {
  route: string;
  name: string;
  /** The place in the header, ascending. */
  order: number;
  View: FunctionComponent<PageProps>;
  /** Whether the page has the theme's colours in maps or charts, so that a new theme builds it anew. */
  hasColours: boolean;
}

const SHARED_PAGES: Page[] = [
  { route: '#/operations', name: 'Operations', order: 2, View: OperationsPage, hasColours: false },
  { route: '#/today', name: 'Today', order: 4, View: TodayPage, hasColours: false },
];
const DOMAIN_PAGES: Page[] = domains
  .flatMap(({ pages }) => pages ?? [])
  .map(({ route, name, order, load }) => ({ route, name, order, View: lazy(load), hasColours: true }));
const PAGES = [...SHARED_PAGES, ...DOMAIN_PAGES].sort((a, b) => a.order - b.order);

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
      {!keyRequired && config && <CurrentPage route={route} theme={theme} config={config} />}
    </>
  );
}

function CurrentPage({ route, theme, config }: { route: string; theme: Theme; config: Config }) {
  const page = PAGES.find((candidate) => candidate.route === route);
  return (
    <Suspense fallback={<p class="note">Loading…</p>}>
      {page && <page.View key={page.hasColours ? `${route} ${theme}` : route} config={config} />}
      {route === '#/api' && <ApiPage />}
      {route !== '#/api' && !page && <LandingPage start={PAGES[0]!.route} />}
    </Suspense>
  );
}
