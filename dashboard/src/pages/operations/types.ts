// Responses that the operations page reads.

export type {
  ChecksResponse,
  ModelsResponse,
  ModelSummary as Model,
  OperationsResponse,
  PartStatus as Part,
} from '../../api/generated';
