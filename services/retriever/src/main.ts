import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { AdmissionGate } from './adapters/admission-gate.ts';
import { openCatalogueTables } from './adapters/catalogue-tables.ts';
import { serveHttp } from './adapters/http-api.ts';
import { followPolicies } from './adapters/policy-source.ts';
import { followPopularity } from './adapters/popularity-feed.ts';
import { readConfig } from './config.ts';
import { runSampleFlow } from './pipeline.ts';
import { Retrieval } from './retrieval.ts';
import { Popularity } from './state/popularity.ts';
import { SidCatalogue } from './state/sid-catalogue.ts';

await runService({
  name: 'retriever',
  config: readConfig,
  start: async (context) => {
    const { config, clock, log, meter, artifacts, fail, stopping } = context;
    const scenarios = new Set(Object.keys(config.scenarios));
    const catalogue = new SidCatalogue({ rebuildMs: config.trieRebuildMs });
    const popularity = new Popularity(config.popularityHalfLifeMs);
    const retrieval = new Retrieval({
      catalogue,
      popularity,
      itemOrder: config.itemOrder,
      denseWeight: config.denseWeight,
      nowMs: () => clock.nowMs(),
    });
    const kafka = await connectKafka({
      ...kafkaSettings(config),
      clientId: 'retriever',
      clock,
      validation: { scenarios, allowedClockSkewMs: config.allowedClockSkewMs },
    });
    const tables = await openCatalogueTables({ kafka, catalogue, log, meter, fail });
    await tables.readToEnd();
    const { policies, close: closePolicies } = await followPolicies({
      ...{ kafka, artifacts, log, meter, fail },
      threads: config.retrieveConcurrency,
      pinned: config.pinnedPolicy,
    });
    const popular = await followPopularity({
      ...{ kafka, popularity, clock, log, meter, stopping, fail, scenarios },
      replaySamples: config.popularityReplaySamples,
      allowedClockSkewMs: config.allowedClockSkewMs,
    });
    const gate = new AdmissionGate({
      concurrency: config.retrieveConcurrency,
      queueLength: config.retrieveQueue,
    });
    const http = await serveHttp({
      host: config.httpHost,
      port: config.retrieverPort,
      limits: {
        scenarios: [...scenarios],
        maxK: config.retrieveMaxK,
        maxBeam: config.retrieveMaxBeam,
        defaultBeam: config.retrieveBeam,
        maxHistory: config.retrieveMaxHistory,
      },
      maxBodyBytes: config.retrieveMaxBodyBytes,
      timeoutMs: config.retrieveTimeoutMs,
      gate,
      allowedClockSkewMs: config.allowedClockSkewMs,
      retrieval,
      acquirePolicy: () => policies.acquire(),
      clock,
      log,
      meter,
    });
    meter.set('retriever_port', http.port, 'port of POST /retrieve');
    log.info({ url: http.url }, 'POST /retrieve and GET /openapi.json answer');
    // a pinned one is an arm of a comparison: rollouts and hit rates are those of the newest policy
    const samples = config.pinnedPolicy
      ? null
      : await runSampleFlow({
          kafka,
          config,
          clock,
          log,
          meter,
          stopping,
          fail,
          policies,
          catalogue,
          retrieval,
          gate,
        });
    return {
      async stop() {
        await http.close();
        await samples?.stop();
        await popular.close();
        await closePolicies();
        await tables.close();
        await kafka.close();
      },
    };
  },
});
