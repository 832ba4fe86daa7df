// The map: MapLibre below, deck.gl above. It draws a scene and does not know where its data comes from.

import type { Layer, PickingInfo } from '@deck.gl/core';
import { MapboxOverlay } from '@deck.gl/mapbox';
import { Map as BaseMap, NavigationControl, setWorkerUrl } from 'maplibre-gl';
import workerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?worker&url';
import 'maplibre-gl/dist/maplibre-gl.css';
import { offlineStyle } from './basemap';
import type { CellTraffic } from './cells';
import { speedColour } from './colours';
import { cellLayer, placeLayer, vehicleLayer } from './layers';
import type { Motion } from './motion';
import { CENTRE } from './newYork';

export interface Scene {
  cells: CellTraffic[];
  /** Whether vehicles are drawn. */
  vehicles: boolean;
  /** The ids of the cells that stand out. */
  hotspots: string[];
  selected: string | null;
}

/** The vehicles to draw, and the time (ms since the epoch) that is drawn. */
export interface MotionFrame {
  motion: Motion;
  at: number;
}

export interface CityMapOptions {
  container: HTMLElement;
  /** The URL of a MapLibre style; null for the offline base map. */
  style: string | null;
  motionFrame: () => MotionFrame;
  onSelect: (cell: string | null) => void;
}

setWorkerUrl(workerUrl);

const REDUCED_MOTION_MS = 1_000;

export class CityMap {
  /** How many frames were drawn. */
  frames = 0;
  private readonly base: BaseMap;
  private readonly overlay: MapboxOverlay;
  private readonly motionFrame: () => MotionFrame;
  private staticLayers: Layer[] = [];
  private vehicles = true;
  private animation = 0;
  private drawnAt = 0;
  private readonly reducedMotion = window.matchMedia('(prefers-reduced-motion: reduce)');

  /** Throws if the browser has no WebGL 2. */
  constructor({ container, style, motionFrame, onSelect }: CityMapOptions) {
    this.motionFrame = motionFrame;
    this.base = new BaseMap({
      container,
      style: style ?? offlineStyle(),
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
      onClick: (info: PickingInfo<CellTraffic>) => onSelect(info.object?.cell ?? null),
      getTooltip: (info: PickingInfo<CellTraffic>) => (info.object?.cell ? { text: describe(info.object) } : null),
    });
    this.base.addControl(this.overlay);
    this.show({ cells: [], vehicles: true, hotspots: [], selected: null });
    const draw = (now: number) => {
      this.animation = requestAnimationFrame(draw);
      if (this.reducedMotion.matches && now - this.drawnAt < REDUCED_MOTION_MS) return;
      this.drawnAt = now;
      this.draw();
    };
    this.animation = requestAnimationFrame(draw);
  }

  show({ cells, vehicles, hotspots, selected }: Scene): void {
    this.vehicles = vehicles;
    this.staticLayers = [placeLayer(), cellLayer(cells, hotspots, selected)];
  }

  remove(): void {
    cancelAnimationFrame(this.animation);
    this.base.remove();
  }

  private draw(): void {
    const layers = [...this.staticLayers];
    if (this.vehicles) {
      const { motion, at } = this.motionFrame();
      motion.moveTo(at, speedColour);
      layers.push(vehicleLayer(motion));
    }
    this.overlay.setProps({ layers });
    this.frames += 1;
  }
}

function describe({ cell, vehicles, speed }: CellTraffic): string {
  const text = speed === null ? 'speed unknown' : `${speed.toFixed(1)} km/h`;
  return `${cell}\n${vehicles} vehicles, ${text}`;
}
