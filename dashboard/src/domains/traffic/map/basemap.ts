// The offline base map, in the colours of the theme. Its data is basemap.json, which the build writes.

import type { StyleSpecification } from 'maplibre-gl';
import { isDark } from '../../../theme';
import type { Rgb } from './colours';

const PALETTES = {
  light: { water: '#c9dbe6', land: '#f1efe9', park: '#d5e4c9', border: '#c9c2b4', text: [70, 70, 70] as Rgb },
  dark: { water: '#0b141c', land: '#1c2730', park: '#22382c', border: '#31404d', text: [190, 200, 210] as Rgb },
};

export const palette = () => PALETTES[isDark() ? 'dark' : 'light'];

export function offlineStyle(): StyleSpecification {
  const { water, land, park, border } = palette();
  return {
    version: 8,
    sources: {
      land: { type: 'geojson', data: `${location.origin}/basemap.json`, attribution: 'US Census Bureau' },
    },
    layers: [
      { id: 'water', type: 'background', paint: { 'background-color': water } },
      { id: 'land', type: 'fill', source: 'land', filter: ['==', 'kind', 'land'], paint: { 'fill-color': land } },
      {
        id: 'border',
        type: 'line',
        source: 'land',
        filter: ['==', 'kind', 'border'],
        paint: { 'line-color': border, 'line-width': 1 },
      },
      ...(['water', 'islands', 'parks'] as const).map((kind) => ({
        id: `near-${kind}`,
        type: 'fill' as const,
        source: 'land',
        filter: ['==', 'kind', kind] as ['==', string, string],
        paint: { 'fill-color': { water, islands: land, parks: park }[kind] },
      })),
    ],
  };
}
