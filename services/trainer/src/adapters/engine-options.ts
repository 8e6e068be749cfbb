import type { EngineOptions } from '@onemall/learning';
import type { Logger } from '@onemall/service-kit';
import type { TrainerConfig } from '../config.ts';

/** The engine that the configuration names; the log says which it is, and why those before it in the order were not taken. */
export const engineOptions = (
  { trainerEngine, intraOpNumThreads }: TrainerConfig,
  log: Logger,
): EngineOptions => ({
  name: trainerEngine,
  intraOpNumThreads,
  onChosen: (choice) => log.info(choice, 'training on this engine'),
});
