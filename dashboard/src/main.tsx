import { render } from 'preact';
import { App } from './App';
import './style.css';
import { applyInitialTheme } from './theme';

applyInitialTheme();
const root = document.getElementById('app');
if (root) {
  root.replaceChildren();
  render(<App />, root);
}
