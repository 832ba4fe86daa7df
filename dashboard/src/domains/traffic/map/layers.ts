// The deck.gl layers that are drawn above the base map.

import type { Layer } from '@deck.gl/core';
import { H3HexagonLayer } from '@deck.gl/geo-layers';
import { ScatterplotLayer, TextLayer } from '@deck.gl/layers';
import { isDark } from '../../../theme';
import { palette } from './basemap';
import type { CellTraffic } from './cells';
import { LEVEL_COLOURS, UNKNOWN_COLOUR } from './colours';
import type { Motion } from './motion';
import { type Place, PLACES } from './newYork';

const METRES_PER_VEHICLE = 22;

export function cellLayer(cells: CellTraffic[], hotspots: string[], selected: string | null): Layer {
  const isHotspot = new Set(hotspots);
  return new H3HexagonLayer<CellTraffic>({
    id: 'cells',
    data: cells,
    pickable: true,
    extruded: true,
    opacity: 0.4,
    getHexagon: ({ cell }) => cell,
    getElevation: ({ vehicles }) => vehicles * METRES_PER_VEHICLE,
    getFillColor: ({ cell, level }) => {
      const [r, g, b] = level ? LEVEL_COLOURS[level] : UNKNOWN_COLOUR;
      return cell === selected ? [255, 255, 255, 230] : [r, g, b, isHotspot.has(cell) ? 255 : 190];
    },
    getLineColor: [30, 30, 30, 120],
    transitions: { getElevation: 600, getFillColor: 600 },
    updateTriggers: { getFillColor: [selected, hotspots.join()] },
  });
}

export function placeLayer(): Layer {
  const [r, g, b] = palette().text;
  return new TextLayer<Place>({
    id: 'places',
    data: PLACES,
    getPosition: ({ position }) => position,
    getText: ({ name }) => name,
    getSize: 13,
    getColor: [r, g, b, 255],
    fontFamily: 'system-ui, sans-serif',
    outlineWidth: 2,
    fontSettings: { sdf: true },
    outlineColor: isDark() ? [20, 30, 40, 255] : [255, 255, 255, 255],
  });
}

export function vehicleLayer(motion: Motion): Layer {
  return new ScatterplotLayer({
    id: 'vehicles',
    data: {
      length: motion.ids.length,
      attributes: {
        getPosition: { value: motion.positions, size: 2 },
        getFillColor: { value: motion.colours, size: 4, normalized: true },
      },
    },
    radiusUnits: 'pixels',
    getRadius: 3.4,
    stroked: true,
    lineWidthUnits: 'pixels',
    getLineWidth: 0.8,
    getLineColor: isDark() ? [255, 255, 255, 160] : [20, 20, 20, 170],
    parameters: { depthCompare: 'always' },
  });
}
