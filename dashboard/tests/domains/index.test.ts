import { expect, test } from 'vitest';
import { domains } from '../../src/domains';

const pages = domains.flatMap((domain) => domain.pages ?? []);

test('each page of a domain has a route and a place of its own', () => {
  expect(new Set(pages.map(({ route }) => route)).size).toBe(pages.length);
  expect(new Set(pages.map(({ order }) => order)).size).toBe(pages.length);
});

test('figures are dashes until they are loaded', () => {
  const figures = domains.flatMap((domain) => domain.figures?.(null) ?? []);
  expect(figures).toContainEqual({ value: '–', unit: 'vehicles', description: 'on the map now' });
});
