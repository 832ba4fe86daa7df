// What a domain declares for the dashboard. Pages outside of this folder show it, and name no domain themselves.

import type { FunctionComponent } from 'preact';
import type { Config, Stats } from '../api/types';
import type { Score } from '../live/messages';

export interface PageProps {
  config: Config;
}

/** A page that only this domain has. */
export interface DomainPage {
  /** The hash in the address, such as `#/map`. */
  route: string;
  name: string;
  /** The place among all pages in the header, ascending. */
  order: number;
  /** Loads the page when it is opened: its libraries are most of the code. */
  load: () => Promise<FunctionComponent<PageProps>>;
}

/** A figure of the landing page. */
export interface Figure {
  value: string;
  unit: string;
  description: string;
}

/** A kind of score of single events, and what it means to an operator. */
export interface ScoreKind {
  /** Whether an operator should look at the event. */
  isNotable: (score: Score) => boolean;
  /** The field that names what the event is about. */
  subject: string;
  summary: (score: Score) => string;
}

export interface Domain {
  /** What sends the domain's events, in the plural. */
  sources: string;
  pages?: DomainPage[];
  /** Figures of now; `stats` is null until they are loaded. */
  figures?: (stats: Stats | null) => Figure[];
  scoreKinds?: ScoreKind[];
}
