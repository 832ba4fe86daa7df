import { defineConfig } from 'vitest/config';

// The tests are of code without a page, so they need neither a browser nor the build's plugins.
export default defineConfig({
  test: { include: ['tests/**/*.test.ts'], isolate: false },
});
