// Responses that the map page reads.

export type {
  CellPrediction,
  CellResponse,
  Hotspot,
  HotspotsResponse,
  TrafficResponse,
} from '../../../../api/generated';
