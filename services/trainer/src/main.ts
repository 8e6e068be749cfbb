import { runService } from '@onemall/service-kit';
import { startTrainer } from './compose.ts';
import { trainerConfig } from './config.ts';
import { openModel } from './open-model.ts';

const model = process.env.ONEMALL_MODEL || 'retriever';
await runService({
  name: process.env.ONEMALL_FORK === 'true' ? 'trainer-fork' : `trainer-${model}`,
  config: trainerConfig,
  start: (context) => startTrainer(context, openModel),
});
