// All domains of the dashboard. Shared code reads domains from here only.

import type { Domain } from './domain';
import { environment } from './environment';
import { equipment } from './equipment';
import { payments } from './payments';
import { traffic } from './traffic';

export const domains: Domain[] = [environment, traffic, equipment, payments];
