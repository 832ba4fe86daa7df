// The map itself: MapLibre below, deck.gl above. Given what is to be shown; knows nothing of where it comes from.

import type { Layer, PickingInfo } from '@deck.gl/core';
import { H3HexagonLayer } from '@deck.gl/geo-layers';
import { ScatterplotLayer, TextLayer } from '@deck.gl/layers';
import { MapboxOverlay } from '@deck.gl/mapbox';
import { Map as BaseMap, NavigationControl, setWorkerUrl } from 'maplibre-gl';
import workerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?worker&url';
import 'maplibre-gl/dist/maplibre-gl.css';
import { type Level, LEVELS, speedColour, UNKNOWN } from './colours';
import type { Motion } from './motion';

export interface Cell {
  cell: string;
  vehicles: number;
  speed: number | null;
  level: Level | null;
}

export interface Shown {
  cells: Cell[];
  vehicles: boolean;
  hotspots: string[];
  selected: string | null;
}

setWorkerUrl(workerUrl);

const CENTRE: [number, number] = [-73.975, 40.752];
const PLACES: { name: string; at: [number, number] }[] = [
  { name: 'Manhattan', at: [-73.972, 40.777] },
  { name: 'Brooklyn', at: [-73.95, 40.667] },
  { name: 'Queens', at: [-73.87, 40.735] },
  { name: 'The Bronx', at: [-73.87, 40.84] },
  { name: 'Staten Island', at: [-74.15, 40.58] },
  { name: 'Jersey City', at: [-74.065, 40.715] },
  { name: 'Newark', at: [-74.172, 40.735] },
];

const PALETTES = {
  light: { water: '#c9dbe6', land: '#f1efe9', park: '#d5e4c9', border: '#c9c2b4', text: [70, 70, 70] },
  dark: { water: '#0b141c', land: '#1c2730', park: '#22382c', border: '#31404d', text: [190, 200, 210] },
} as const;

export class CityMap {
  readonly base: BaseMap;
  frames = 0;
  private readonly overlay: MapboxOverlay;
  private shown: Shown = { cells: [], vehicles: true, hotspots: [], selected: null };
  private hexagons: Layer[] = [];
  private animation = 0;
  private cellsAt = 0;
  private drawnAt = 0;
  private readonly calm = window.matchMedia('(prefers-reduced-motion: reduce)');

  constructor(
    container: HTMLElement,
    style: string | null,
    private readonly motion: Motion,
    private readonly clock: () => number,
    private readonly onCell: (cell: string | null) => void,
  ) {
    this.base = new BaseMap({
      container,
      style: style ?? offline(),
      center: CENTRE,
      zoom: 11.6,
      pitch: 52,
      bearing: -17,
      attributionControl: { compact: true },
      maxPitch: 70,
    });
    this.base.addControl(new NavigationControl({ visualizePitch: true }), 'top-right');
    this.overlay = new MapboxOverlay({
      interleaved: false,
      layers: [],
      onClick: (info: PickingInfo<Cell>) => this.onCell(info.object?.cell ?? null),
      getTooltip: (info: PickingInfo<Cell>) => (info.object?.cell ? { text: described(info.object) } : null),
    });
    this.base.addControl(this.overlay);
    const draw = (now: number) => {
      this.animation = requestAnimationFrame(draw);
      // Who wants no motion is shown where vehicles are once a second.
      if (this.calm.matches && now - this.drawnAt < 1_000) return;
      this.drawnAt = now;
      this.draw();
    };
    this.animation = requestAnimationFrame(draw);
  }

  show(shown: Shown): void {
    this.shown = shown;
    this.cellsAt = 0;
  }

  remove(): void {
    cancelAnimationFrame(this.animation);
    this.base.remove();
  }

  private draw(): void {
    if (this.cellsAt === 0) {
      this.hexagons = this.cells();
      this.cellsAt = performance.now();
    }
    const layers: Layer[] = [...this.hexagons];
    if (this.shown.vehicles) {
      this.motion.at(this.clock(), speedColour);
      layers.push(this.vehicles());
    }
    this.overlay.setProps({ layers });
    this.frames += 1;
  }

  private cells(): Layer[] {
    const { cells, selected, hotspots } = this.shown;
    const hot = new Set(hotspots);
    const hexagons = new H3HexagonLayer<Cell>({
      id: 'cells',
      data: cells,
      pickable: true,
      extruded: true,
      opacity: 0.4,
      getHexagon: ({ cell }) => cell,
      getElevation: ({ vehicles }) => vehicles * 22,
      getFillColor: ({ cell, level }) => {
        const [r, g, b] = level ? LEVELS[level] : UNKNOWN;
        return cell === selected ? [255, 255, 255, 230] : [r, g, b, hot.has(cell) ? 255 : 190];
      },
      getLineColor: [30, 30, 30, 120],
      transitions: { getElevation: 600, getFillColor: 600 },
      updateTriggers: { getFillColor: [selected, hotspots.join()] },
    });
    const palette = PALETTES[dark() ? 'dark' : 'light'];
    const names = new TextLayer<(typeof PLACES)[number]>({
      id: 'places',
      data: PLACES,
      getPosition: ({ at }) => at,
      getText: ({ name }) => name,
      getSize: 13,
      getColor: [...palette.text, 255] as [number, number, number, number],
      fontFamily: 'system-ui, sans-serif',
      outlineWidth: 2,
      fontSettings: { sdf: true },
      outlineColor: dark() ? [20, 30, 40, 255] : [255, 255, 255, 255],
    });
    return [names, hexagons];
  }

  private vehicles(): Layer {
    const { motion } = this;
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
      getLineColor: dark() ? [255, 255, 255, 160] : [20, 20, 20, 170],
      parameters: { depthCompare: 'always' },
    });
  }
}

export function described({ cell, vehicles, speed }: Cell): string {
  const fast = speed === null ? 'speed unknown' : `${speed.toFixed(1)} km/h`;
  return `${cell}\n${vehicles} vehicles, ${fast}`;
}

export const dark = () => document.documentElement.dataset.theme === 'dark';

function offline(): import('maplibre-gl').StyleSpecification {
  const palette = PALETTES[dark() ? 'dark' : 'light'];
  return {
    version: 8,
    sources: {
      land: { type: 'geojson', data: `${location.origin}/basemap.json`, attribution: 'US Census Bureau' },
    },
    layers: [
      { id: 'water', type: 'background', paint: { 'background-color': palette.water } },
      { id: 'land', type: 'fill', source: 'land', filter: ['==', 'kind', 'land'], paint: { 'fill-color': palette.land } },
      {
        id: 'border',
        type: 'line',
        source: 'land',
        filter: ['==', 'kind', 'border'],
        paint: { 'line-color': palette.border, 'line-width': 1 },
      },
      ...(['water', 'islands', 'parks'] as const).map((kind) => ({
        id: `near-${kind}`,
        type: 'fill' as const,
        source: 'land',
        filter: ['==', 'kind', kind] as ['==', string, string],
        paint: { 'fill-color': { water: palette.water, islands: palette.land, parks: palette.park }[kind] },
      })),
    ],
  };
}
