// Generated from the server's OpenAPI document by `make docs`. Do not edit: change the models in Python.

/** The events of an alarm, the oldest first. */
export interface AlarmHistoryResponse {
  history: HistoryEntry[];
}

/** An alarm, which has one cause. */
export interface AlarmResponse {
  id: number;
  cause: string;
  severity: 'info' | 'warning' | 'error' | 'critical';
  title: string;
  group: string;
  active: boolean;
  acknowledged: boolean;
  /** How often the alarm was raised or repeated. */
  count: number;
  first_at: string;
  last_at: string;
  assignee: string | null;
  /** By how many steps the severity rose because nobody acknowledged the alarm. */
  escalations: number;
  /** Whether the alarm was raised and cleared so often that messages tell only this, and later its end. */
  flapping: boolean;
  silenced: boolean;
  labels: Record<string, string>;
  detail: Record<string, JsonValue> | null;
  /** Such as "active, unacknowledged". */
  state: string;
}

/** Alarms, the most severe and newest first. */
export interface AlarmsResponse {
  alarms: AlarmResponse[];
}

/** The results of one side of an experiment. */
export interface ArmSummary {
  requests: number;
  errors: number;
  /** The median of the newest requests. */
  latency_ms: number | null;
  outcomes: number;
  /** The mean loss; null without outcomes. */
  loss: number | null;
}

export interface AssignBody {
  to: string;
}

/** An entry of the audit log. Its other fields depend on the change. */
export interface AuditEntry {
  /** The time of the change, in seconds since the epoch. */
  at: number;
  by: string;
  what: string;
  [field: string]: unknown;
}

/** Entries of the audit log, the newest first. */
export interface AuditResponse {
  entries: AuditEntry[];
}

/** The answer to an instance of a batch. */
export interface BatchPrediction {
  id: string;
  prediction: number | string;
  confidence?: number;
  /** The lower end of the interval. */
  low?: number;
  high?: number;
  /** The probability from which on the second of two classes is predicted. It may depend on a category. */
  threshold?: number;
  probabilities?: Record<string, number>;
}

/** The answers to the instances of a batch, in their order. */
export interface BatchResponse {
  model: string;
  version: number;
  predictions: BatchPrediction[];
}

export interface Body_token_token_post {
  grant_type: string;
  client_id: string;
  client_secret: string;
}

/** A cell some minutes ahead. */
export interface CellAhead {
  cell: string;
  speed_now: number | null;
  speed_5?: number | null;
  speed_10?: number | null;
  speed_15?: number | null;
  congestion_15?: 'low' | 'medium' | 'high' | null;
  /** The level of the predicted speed. */
  congestion: 'low' | 'medium' | 'high' | null;
}

/** A model's output for a cell. Without fresh features it has only the model and its version. */
export interface CellPrediction {
  model: string;
  means: string;
  /** Null while the model has no champion. */
  version: number | null;
  prediction?: number | string;
  /** The probability of a class; null for a number. */
  confidence?: number | null;
  /** The lower end of a number's interval. */
  low?: number | null;
  high?: number | null;
}

/** All that is known of a cell. */
export interface CellResponse {
  cell: string;
  /** Its newest window; null where there was none for some minutes. */
  now: CellRow | null;
  /** The features in the online store. */
  features: Record<string, boolean | number | string | null>;
  predictions: CellPrediction[];
  /** Its windows of the last hours. */
  history: WindowsResponse;
}

/** A cell's newest window. Its keys are the columns of the layer `cells`. */
export interface CellRow {
  /** An H3 cell of resolution 8. */
  cell: string;
  /** The start of the window. */
  t: number;
  vehicle_count: number;
  speed_mean: number | null;
  speed_std: number | null;
  congestion: 'low' | 'medium' | 'high' | null;
  /** The mean speed that is predicted for five minutes later; null without a champion or fresh features. */
  speed_5: number | null;
  speed_10: number | null;
  speed_15: number | null;
  congestion_15: 'low' | 'medium' | 'high' | null;
}

/** Every cell some minutes ahead, by the champions. */
export interface CellsAheadResponse {
  minutes: number;
  /** The champion's version by model; null where a model has none yet. */
  serving: Record<string, number | null>;
  cells: CellAhead[];
}

/** The results of the asset checks at their last evaluation. */
export interface ChecksResponse {
  /** Why there are no results; null where there are. */
  error: string | null;
  passed: number;
  failed: FailedCheck[];
}

/** The difference of both sides' mean losses: the other version's minus the champion's. */
export interface Comparison {
  difference: number;
  /** The lower end of the 95 % interval. */
  low: number;
  high: number;
  /** It may be read at any time. */
  p_value: number;
  outcomes: number;
  /** Absent for an A/B test, which no evidence ends. */
  evidence?: number;
  /** The evidence at which a canary ends. */
  ends_at?: number;
}

/** The settings that a page needs before it can send a key. */
export interface ConfigResponse {
  wants_key: boolean;
  /** The URL of the map's style; null for the map that needs no internet. */
  map_style: string | null;
  timezone: string;
  layers: Record<string, LayerDescription>;
}

/** The changes since the message before. */
export interface DeltaMessage {
  epoch: string;
  seq: number;
  at: number;
  type: 'delta';
  layers: Record<string, LayerDelta | ScoreFeed>;
}

/** Whether a server or a part that the server depends on works. */
export interface DependencyHealth {
  ok: boolean;
  /** Whether no prediction is possible without it. */
  needed: boolean;
  detail: string;
}

export interface ExperimentBody {
  kind: 'canary' | 'ab' | 'shadow';
  version: number;
  /** of the requests (canary, shadow) or of the keys (ab) */
  share?: number;
  /** the limits that end a canary */
  limits?: LimitsBody;
}

/** An experiment and its results. */
export interface ExperimentReport {
  kind: 'canary' | 'ab' | 'shadow';
  version: number;
  share: number;
  limits: LimitsReport;
  /** Who began it. */
  by: string;
  /** When it began, in seconds since the epoch. */
  since: number;
  /** The champion that the version is compared with; absent before the first request. */
  champion?: number;
  /** The results by role. */
  arms: Record<string, ArmSummary>;
  /** Null while there are too few outcomes. */
  comparison: Comparison | null;
}

/** A sentence, or a figure with its label, or both. */
export interface FactResponse {
  name: string;
  sentence: string;
  label: string;
  value: number | null;
  unit: string;
  /** The figure of the same day a week ago. */
  before: number | null;
}

/** An asset check that failed when it was last evaluated. */
export interface FailedCheck {
  asset: string;
  check: string;
  severity: string;
  says: string;
  /** The time of the evaluation, as ISO 8601 text. */
  at: string | null;
  /** The check in Dagster's UI. */
  link: string;
}

/** The judgement of a prediction by its outcome. */
export interface FeedbackResponse {
  id: string;
  model: string;
  version: number;
  loss: number;
  /** Whether the outcome was recorded before, so that nothing changed. */
  repeated: boolean;
}

/** An error of one field of a request. */
export interface FieldError {
  field: string;
  /** The error with the fix. */
  message: string;
}

/** The remaining life of a machine, and what to do about it. */
export interface ForecastResponse {
  /** The prediction's, to be given with the outcome at /feedback. */
  id: string;
  machine_id: string;
  at: string;
  predicted_rul_hours: number;
  /** The hours between which the remaining life is, in `coverage` of the cases; null where the model has none. */
  confidence_interval: [number, number] | null;
  /** The prediction in `life_unit`, the unit of the machine's type. */
  remaining_life: number;
  remaining_life_interval: [number, number] | null;
  /** h, d or cycles. */
  life_unit: string;
  coverage: number;
  /** By the lower end of the interval and the machine's type, as in the topic maintenance-predictions. */
  recommended_action: string;
  priority: string;
  /** Why the prediction may be wrong: machines of this type are not learned from. Null where they are. */
  warning: string | null;
  model: string;
  version: number;
}

/** The health of the server, of its dependencies and of its background loops. */
export interface HealthResponse {
  live: boolean;
  ready: boolean;
  /** The time of the check, in seconds since the epoch. */
  at: number;
  dependencies: Record<string, DependencyHealth>;
  workers: WorkerSummary[];
}

/** An event of an alarm. `by` is the person, null for the platform itself. */
export interface HistoryEntry {
  id: number;
  alarm: number;
  at: string;
  event: string;
  by: string | null;
  note: string | null;
}

/** How far the simulated history of a new city is made. */
export interface HistoryStatus {
  /**
   * `restarting`: it failed or was killed, and the supervisor starts it again. `down`: nothing continues it now.
   */
  state: 'running' | 'restarting' | 'down' | 'done';
  percent: number;
  /** Such as "table vehicle_speeds". */
  step: string;
  days: number;
  /** The step that failed, and why. */
  error: string | null;
}

/** A cell whose vehicles are slow. */
export interface Hotspot {
  cell: string;
  t: number;
  vehicle_count: number;
  speed_mean: number | null;
  speed_std: number | null;
  congestion: 'low' | 'medium' | 'high' | null;
  speed_5: number | null;
  speed_10: number | null;
  speed_15: number | null;
  congestion_15: 'low' | 'medium' | 'high' | null;
  /** The vehicles times what their mean speed lacks of a free one, in vehicle-km/h. */
  lost: number;
}

/** The cells where most vehicles are slow, the worst first. */
export interface HotspotsResponse {
  hotspots: Hotspot[];
}

/** The answers to a request's tensors. */
export interface InferResponse {
  model_name: string;
  model_version: string;
  outputs: OutputTensor[];
  /** The id of the request, where it has one. */
  id?: string;
}

/** The interval that contains the share `coverage` of outcomes. */
export interface Interval {
  low: number;
  high: number;
  coverage: number;
}

export type JsonValue = unknown;

/** The map's settings as Kepler.gl defines them, with the version of their format. */
export interface KeplerConfig {
  version: string;
  config: Record<string, JsonValue>;
}

/** A table of Kepler.gl. */
export interface KeplerData {
  id: string;
  label: string;
  color: number[];
  allData: JsonValue[][];
  fields: KeplerField[];
}

/** A table of Kepler.gl, with the version of its format. */
export interface KeplerDataset {
  version: string;
  data: KeplerData;
}

/** A column of Kepler.gl's data. */
export interface KeplerField {
  name: string;
  type: string;
  format: string;
  analyzerType: string;
}

/** A map as Kepler.gl saves and opens it (schema v1). */
export interface KeplerResponse {
  datasets: KeplerDataset[];
  config: KeplerConfig;
  info: Record<string, string>;
}

/** The changes of a layer. */
export interface LayerDelta {
  rows: [string, number, ...unknown[]][];
  /** Keys that were removed. */
  gone: string[];
}

/** A layer of the live city. */
export interface LayerDescription {
  /** The columns of its rows: the key, the time in milliseconds since the epoch, and the others. */
  columns: string[];
  means: string;
}

/** The rows of a layer of the live city, by column. */
export interface LayerRowsResponse {
  /** The server's time, in seconds since the epoch. */
  at: number;
  rows: Record<string, JsonValue>[];
}

/** All rows of a layer. */
export interface LayerSnapshot {
  columns: string[];
  means: string;
  rows: [string, number, ...unknown[]][];
}

export interface LimitsBody {
  error_rate?: number;
  latency_ratio?: number;
  least_requests?: number;
}

/** The limits at which a canary is ended. */
export interface LimitsReport {
  error_rate: number;
  latency_ratio: number;
  least_requests: number;
}

/** Addresses of other pages of the platform. */
export interface Links {
  dagster: string;
  mlflow: string | null;
  /** Paths of the quality reports, on this server. */
  data_docs: string[];
}

/** Whether the server lives. */
export interface LivenessResponse {
  live: boolean;
}

/** An input of a model. */
export interface ModelInput {
  name: string;
  kind: string;
  unit: string | null;
  nullable: boolean;
  means: string;
}

/** A model's tensors. */
export interface ModelMetadata {
  name: string;
  /** The champion; empty while there is none. */
  versions: string[];
  platform: string;
  inputs: TensorMetadata[];
  outputs: TensorMetadata[];
}

/** Whether a model has a champion. */
export interface ModelReadiness {
  name: string;
  ready: boolean;
}

/** A model with all its versions and its inputs. */
export interface ModelResponse {
  name: string;
  means: string;
  kind: 'classification' | 'regression' | 'anomaly';
  unit: string | null;
  classes: string[] | null;
  /** The name of the feature view. */
  features: string;
  /** The key of the feature view. */
  entity: string[];
  /** The name of the metric that decides about promotion. */
  measure: string;
  /** How far ahead the model predicts. */
  ahead_minutes: number;
  /** The champion's version; null while there is none. */
  serving: number | null;
  experiment: ExperimentReport | null;
  versions: ModelVersion[];
  inputs: ModelInput[];
}

/** A model, its newest versions and its experiment. */
export interface ModelSummary {
  name: string;
  means: string;
  kind: 'classification' | 'regression' | 'anomaly';
  unit: string | null;
  classes: string[] | null;
  /** The name of the feature view. */
  features: string;
  /** The key of the feature view. */
  entity: string[];
  /** The name of the metric that decides about promotion. */
  measure: string;
  /** How far ahead the model predicts. */
  ahead_minutes: number;
  /** The champion's version; null while there is none. */
  serving: number | null;
  experiment: ExperimentReport | null;
  versions: ModelVersion[];
}

/** A registered version of a model. */
export interface ModelVersion {
  version: number;
  aliases: string[];
  trained_at: string | null;
  metrics: Record<string, number>;
}

/** Every model. */
export interface ModelsResponse {
  models: ModelSummary[];
}

export interface NoteBody {
  note?: string;
}

/** Where events are in Kafka. */
export interface OffsetsResponse {
  topic: string;
  partition: number;
  first: number;
  last: number;
}

/** The status of every part and stream, and the drift of features. */
export interface OperationsResponse {
  parts: Record<string, PartStatus>;
  leftovers: Record<string, number>;
  bronze_rows: Record<string, number>;
  quarantined: Record<string, number>;
  alarm_channels: Record<string, string>;
  history: HistoryStatus | null;
  /** Why the live city is not up to date; null where it is. */
  live_error: string | null;
  /** The largest effect size of the newest comparison, by feature view and feature. */
  drift: Record<string, Record<string, number>>;
  links: Links;
}

/** An output with its values, row by row. */
export interface OutputTensor {
  name: string;
  datatype: 'FP64' | 'BYTES';
  shape: number[];
  data: (number | string)[];
}

/** The state of a part of the platform. Figures are null while there is no fresh report. */
export interface PartStatus {
  address: string;
  state: string;
  events_per_second: number | null;
  lag: number | null;
  p95_ms: number | null;
  /** `exit` and `errors` in one line. */
  last_error: string | null;
  /** Why the part's process has ended, for a minute after that. */
  exit: string | null;
  /** The current errors. */
  errors: string[];
  /** Whether the part lives, but does not report, hangs, or has fallen silent. */
  stalled: boolean;
  /** Absent for a loop, which restarts with the part that it is within. */
  restarts?: number;
  workers?: WorkerSummary[];
  /** The part whose process this one lives in, or ends with. */
  within?: string;
  /** The stream of each topic. Only the streaming job has streams. */
  streams?: Record<string, StreamSummary>;
}

/** Positions of vehicles, in the order of time. */
export interface PositionsResponse {
  columns: string[];
  rows: [number, string, number, number, number | null][];
}

/** A model's answer. */
export interface PredictionResponse {
  prediction: number | string;
  confidence?: number;
  threshold?: number;
  interval?: Interval;
  unit?: string;
  score?: number;
  contributions?: Record<string, number>;
  probabilities?: Record<string, number>;
  /** To be given with the outcome, at /feedback. */
  id: string;
  model: string;
  version: number;
  /** The part of the version in an experiment; otherwise champion. */
  role: 'champion' | 'canary' | 'b' | 'shadow' | 'control';
  /** Whether the same input was answered a short time ago, and the model was not run again. */
  cached: boolean;
  latency_ms: number;
  /** The features of the entity that was asked about. */
  features?: Record<string, JsonValue>;
  /** The mean output, to which the contributions are added. */
  base?: number;
}

/** An error, as problem details (RFC 9457). */
export interface ProblemDetails {
  type: string;
  title: string;
  status: number;
  detail: string;
  /** Absent where the error is of no field. */
  errors?: FieldError[];
}

export interface PromoteBody {
  version: number;
}

/** Whether the server can answer. */
export interface ReadinessResponse {
  ready: boolean;
}

/** What became of the messages of a request. */
export interface ReceiptResponse {
  /** The number of events that Kafka has. A message of a source can be several. */
  accepted: number;
  /** The number of messages against which there are reasons. */
  rejected: number;
  offsets: OffsetsResponse[];
  /** The first hundred of the rejected. */
  reasons: RejectedResponse[];
}

/** A message of which not every event was taken. */
export interface RejectedResponse {
  /** The place of the message in the body, from 0 on. */
  message: number;
  reasons: string[];
}

/** A model's routing: which version answers. */
export interface RoutingResponse {
  champion: number | null;
  experiment: ExperimentReport | null;
  /** Why the platform ended the last experiment. */
  ended: string | null;
}

/** A model's output for one event. Its other fields depend on the model. */
export interface Score {
  model: string;
  id: string;
  timestamp?: string;
  [field: string]: unknown;
}

/** New scores of single events, the newest last. It is the layer `scores`. */
export interface ScoreFeed {
  rows: Score[];
}

/** The city's traffic over time. */
export interface SeriesResponse {
  columns: string[];
  /** The unit of each column of values. */
  units: Record<string, string>;
  rows: [number, number | null, number | null][];
  /** The rows of a week earlier, with their times moved to this week. */
  week_before: [number, number | null, number | null][];
}

/** The server, as the Open Inference Protocol describes it. */
export interface ServerMetadata {
  name: string;
  version: string;
  extensions: string[];
}

/** The whole city: the first message, and one for a client that fell behind. */
export interface SnapshotMessage {
  epoch: string;
  seq: number;
  at: number;
  type: 'snapshot';
  layers: Record<string, LayerSnapshot | ScoreFeed>;
}

/** Rates, lag, latency and counts. */
export interface StatsResponse {
  /** The server's time, in seconds since the epoch. */
  at: number;
  up_seconds: number;
  events_per_second: number | null;
  lag: number | null;
  /** The 95th percentile of the time from an event to its bronze commit, in milliseconds. */
  p95_ms: number | null;
  /** Rows in bronze, of all topics. */
  events: number;
  quarantined: number;
  /** The number of rows, by layer. */
  live: Record<string, number>;
  /** Predictions that were recorded since the server's start. */
  predictions: number;
  models_serving: number;
  /** Open WebSockets. */
  clients: number;
  /** How far the simulated history is made. Null for a city without one. */
  history: HistoryStatus | null;
}

export type StreamMessage = SnapshotMessage | DeltaMessage;

/** Samples of the total of a stream's events. */
export interface StreamSamples {
  /** Pairs of a time, in seconds since the epoch, and the total at that time. */
  of: [number, number][];
}

/** The counters, rate, lag and latency of one topic's stream. */
export interface StreamSummary {
  topic: string;
  /** Rows that were committed to bronze since the stream's start. */
  rows: number;
  quarantined: number;
  late: number;
  too_late: number;
  /** Messages that are not yet read. */
  lag: number | null;
  events_per_second: number | null;
  /** The 95th percentile of the time from an event to its bronze commit, in milliseconds. */
  p95_ms: number | null;
  /** Versions of the bronze table that a sink has not yet applied, by sink. */
  sinks_behind: Record<string, number>;
  /** The 95th percentile of the time from an event to a sink, in milliseconds, by sink. */
  sinks_p95_ms: Record<string, number | null>;
  samples: StreamSamples;
  last_error: string | null;
}

/** An input or an output of a model. */
export interface TensorMetadata {
  name: string;
  datatype: 'FP32' | 'FP64' | 'BYTES';
  /** -1 is any size. */
  shape: number[];
}

/** The mean speeds that bound the levels of congestion. */
export interface Thresholds {
  high_below: number;
  medium_below: number;
}

/** The facts of the local day so far. */
export interface TodayResponse {
  /** The server's time, in seconds since the epoch. */
  at: number;
  timezone: string;
  facts: FactResponse[];
}

/** A token for the header `Authorization: Bearer` (RFC 6749, section 4.4.3). */
export interface TokenResponse {
  access_token: string;
  token_type: string;
  /** Seconds for which the token is valid. */
  expires_in: number;
  /** The role of the key. */
  scope: string;
}

/** Every cell's newest window. */
export interface TrafficResponse {
  vehicles: number;
  /** The mean over cells, weighted by vehicles. */
  speed_mean: number | null;
  /** The number of cells of each level. */
  by_congestion: Record<string, number>;
  thresholds_kmh: Thresholds;
  cells: CellRow[];
}

/** Windows of cells. */
export interface WindowsResponse {
  columns: string[];
  rows: [number, string, number, number | null][];
}

/** The state of a background loop. Times are in seconds since the epoch. */
export interface WorkerSummary {
  name: string;
  /** starting, running, restarting or stopped. */
  state: string;
  restarts: number;
  /** The number of items that the loop has handled since its start. */
  items: number;
  began: number;
  last_progress: number | null;
  /** A loop without progress for so long is not well. Null for a loop that may take any time. */
  stall_seconds: number | null;
  last_error: string | null;
}
