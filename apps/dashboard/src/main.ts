import { runService } from '@onemall/service-kit';
import { readConfig } from './config.ts';
import { serveDashboard } from './server.ts';

await runService({
  name: 'dashboard',
  config: readConfig,
  start: async ({ config, clock, log, stopping }) => {
    const dashboard = await serveDashboard(config, { clock, log, stopping });
    process.stdout.write(`onemall-dashboard ${dashboard.url}\n`);
    return { stop: () => dashboard.close() };
  },
});
