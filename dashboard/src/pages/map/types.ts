// Responses that the map page reads.

export interface Hotspot {
  cell: string;
  vehicle_count: number;
  speed_mean: number;
}

export interface HotspotsResponse {
  hotspots: Hotspot[];
}

export interface TrafficResponse {
  thresholds_kmh: { high_below: number; medium_below: number };
}

/** A model's output for a cell. Without a champion `version` is null; without fresh features the rest is absent. */
export interface CellPrediction {
  model: string;
  version: number | null;
  prediction?: string | number;
  low?: number | null;
  high?: number | null;
  confidence?: number | null;
}

export interface CellResponse {
  cell: string;
  now: { vehicle_count: number; speed_mean: number } | null;
  predictions: CellPrediction[];
}
