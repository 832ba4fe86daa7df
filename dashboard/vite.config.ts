import preact from '@preact/preset-vite';
import { defineConfig } from 'vite';

// In development the API is that of a running `city up`.
const api = { target: 'http://127.0.0.1:8000', ws: true };

export default defineConfig({
  plugins: [preact()],
  worker: { format: 'es' },
  build: { target: 'es2022', chunkSizeWarningLimit: 2500 },
  server: { proxy: { '/api': api, '/ws': api, '/models': api, '/health': api } },
});
