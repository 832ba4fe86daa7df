// The light or dark theme: the reader's last choice, or else the system's.

export type Theme = 'light' | 'dark';

const STORAGE_KEY = 'city.theme';

export const currentTheme = (): Theme => (document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light');
export const isDark = () => currentTheme() === 'dark';

export function applyInitialTheme(): void {
  const system = window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  document.documentElement.dataset.theme = localStorage.getItem(STORAGE_KEY) ?? system;
}

export function saveTheme(theme: Theme): void {
  localStorage.setItem(STORAGE_KEY, theme);
  document.documentElement.dataset.theme = theme;
}
