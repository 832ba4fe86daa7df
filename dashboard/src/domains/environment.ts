import type { Domain } from './domain';

export const environment: Domain = { sources: 'sensors' };
