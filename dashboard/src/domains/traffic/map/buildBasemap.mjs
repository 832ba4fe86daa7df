// Writes the offline base map: the land around New York, from the US Census Bureau's boundaries in us-atlas. These have
// no rivers, so city_assets/traffic/waters.json has them. The simulated vehicles keep to the same shoreline.
import { readFileSync, writeFileSync } from 'node:fs';
import { feature, mesh } from 'topojson-client';

const [WEST, SOUTH, EAST, NORTH] = [-75.2, 39.9, -72.8, 41.6];
const atlas = JSON.parse(readFileSync(new URL('../../../../node_modules/us-atlas/counties-10m.json', import.meta.url)));

const round = (value) => Math.round(value * 1e5) / 1e5;
const rounded = (part) => (typeof part[0] === 'number' ? part.map(round) : part.map(rounded));
const points = (part) => (typeof part[0] === 'number' ? [part] : part.flatMap(points));
const near = ({ geometry }) =>
  geometry && points(geometry.coordinates).some(([x, y]) => x > WEST && x < EAST && y > SOUTH && y < NORTH);

const land = feature(atlas, atlas.objects.counties)
  .features.filter(near)
  .map(({ properties, geometry }) => ({
    type: 'Feature',
    properties: { kind: 'land', name: properties.name },
    geometry: { ...geometry, coordinates: rounded(geometry.coordinates) },
  }));
const ids = new Set(land.map(({ properties }) => properties.name));
const borders = mesh(atlas, atlas.objects.counties, (a, b) => a !== b && ids.has(a.properties.name));
const inside = borders.coordinates.filter((line) =>
  line.some(([x, y]) => x > WEST && x < EAST && y > SOUTH && y < NORTH),
);
land.push({
  type: 'Feature',
  properties: { kind: 'border' },
  geometry: { type: 'MultiLineString', coordinates: rounded(inside) },
});
const waters = JSON.parse(readFileSync(new URL('../../../../../city_assets/traffic/waters.json', import.meta.url)));
const polygon = (kind, ring, name) => ({
  type: 'Feature',
  properties: { kind, name },
  geometry: { type: 'Polygon', coordinates: [ring] },
});
land.push(polygon('water', waters.water));
for (const kind of ['islands', 'parks'])
  for (const [name, ring] of Object.entries(waters[kind])) land.push(polygon(kind, ring, name));
const target = new URL('../../../../public/basemap.json', import.meta.url);
writeFileSync(target, JSON.stringify({ type: 'FeatureCollection', features: land }));
console.log(`basemap.json: ${land.length} features`);
