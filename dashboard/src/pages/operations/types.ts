// Responses that the operations page reads.

export interface Part {
  address: string;
  state: string;
  events_per_second: number | null;
  last_error: string | null;
  streams?: Record<string, Stream>;
}

export interface Stream {
  late: number;
  lag: number;
  events_per_second: number;
  p95_ms: number | null;
  last_error: string | null;
}

export interface OperationsResponse {
  parts: Record<string, Part>;
  /** Rows in bronze, by topic. */
  bronze_rows: Record<string, number>;
  /** Rejected messages, by topic. */
  quarantined: Record<string, number>;
  live_error: string | null;
  /** Drift by feature view and feature. */
  drift: Record<string, Record<string, number>>;
  links: { dagster: string; mlflow: string | null; data_docs: string[] };
}

export interface ChecksResponse {
  error: string | null;
  passed: number;
  failed: { asset: string; check: string; severity: string; says: string; link: string }[];
}

export interface ModelVersion {
  version: number;
  trained_at: string | null;
  metrics: Record<string, number>;
}

export interface Model {
  name: string;
  means: string;
  /** The name of the metric that decides about promotion. */
  measure: string;
  /** The name of the feature view. */
  features: string;
  serving: number | null;
  experiment: { kind: string; version: number; share: number } | null;
  versions: ModelVersion[];
}

export interface ModelsResponse {
  models: Model[];
}
