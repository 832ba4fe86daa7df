import { formatNumber } from '../../format';
import type { Domain } from '../domain';

export const traffic: Domain = {
  sources: 'vehicles',
  pages: [
    { route: '#/map', name: 'Map', order: 1, load: () => import('./pages/map/MapPage').then(({ MapPage }) => MapPage) },
    {
      route: '#/analytics',
      name: 'Analytics',
      order: 3,
      load: () => import('./pages/analytics/AnalyticsPage').then(({ AnalyticsPage }) => AnalyticsPage),
    },
  ],
  figures: (stats) => [
    { value: formatNumber(stats?.live.vehicles), unit: 'vehicles', description: 'on the map now' },
  ],
};
