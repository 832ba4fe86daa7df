import { useConnectionStatus } from '../hooks/useConnectionStatus';
import type { ConnectionStatus } from '../live/LiveConnection';
import { type Theme } from '../theme';

interface HeaderProps {
  pages: { route: string; name: string }[];
  route: string;
  theme: Theme;
  onTheme: (theme: Theme) => void;
}

const STATE_NAMES: Record<ConnectionStatus['state'], string> = {
  connecting: 'connecting',
  live: 'live',
  lost: 'no connection',
};

export function Header({ pages, route, theme, onTheme }: HeaderProps) {
  const { state, reason } = useConnectionStatus();
  const otherTheme = theme === 'dark' ? 'light' : 'dark';
  return (
    <header>
      <a class="brand" href="#/">
        City
      </a>
      <nav aria-label="Views">
        {pages.map((page) => (
          <a key={page.route} href={page.route} aria-current={route === page.route ? 'page' : undefined}>
            {page.name}
          </a>
        ))}
      </nav>
      <span class={`connection ${state}`} role="status" title={reason}>
        {STATE_NAMES[state]}
      </span>
      <button type="button" class="link" onClick={() => onTheme(otherTheme)}>
        {otherTheme === 'dark' ? 'Dark' : 'Light'}
      </button>
    </header>
  );
}
