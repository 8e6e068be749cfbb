/** Import rules of the monorepo; `npm run check:imports` refuses what breaks them. */
const PURE = '^packages/(event-time|quantization|features)/';
/** Rooms of apps/evaluate/src/world: each knows those before it. */
const ROOMS = ['log', 'samples', 'lists', 'judging', 'training', 'reports'];
const ROOM = '^apps/evaluate/src/world/';
module.exports = {
  forbidden: [
    {
      name: 'services-never-import-each-other',
      comment: 'Topics are the only integration points: move shared code to a package.',
      severity: 'error',
      from: { path: '^(services|apps)/([^/]+)/', pathNot: '^apps/evaluate/' },
      to: { path: '^(services|apps)/', pathNot: '^(services|apps)/$2/' },
    },
    {
      name: 'evaluation-measures-what-serves',
      comment:
        'The evaluation runs the pure parts of services, not copies of them, and alone may ask the world for its truth.',
      severity: 'error',
      from: { path: '^apps/evaluate/' },
      to: {
        path: '^(services|apps)/',
        pathNot: [
          '^apps/evaluate/',
          '^apps/simulator/src/(world/|adapters/world-file)',
          '^services/[^/]+/src/stages/',
          // The twin on plain objects, which a property test holds equal to the stages.
          '^services/sample-assembler/test/plain/',
        ],
      },
    },
    ...ROOMS.map((room, at) => ({
      name: `evaluation-room-${room}`,
      comment: `The rooms stand in the order ${ROOMS.join(', ')}; what composes them lies beside them.`,
      severity: 'error',
      from: { path: `${ROOM}${room}/` },
      to: { path: [`${ROOM}[^/]+$`, ...ROOMS.slice(at + 1).map((later) => `${ROOM}${later}/`)] },
    })),
    {
      name: 'packages-never-import-services',
      severity: 'error',
      from: { path: '^packages/' },
      to: { path: '^(services|apps)/' },
    },
    {
      name: 'pure-packages-import-no-effects',
      comment:
        'Event time, quantization and features are functions of their inputs: no files, network, clients or clocks.',
      severity: 'error',
      from: { path: PURE, pathNot: '/(test|bench)/' },
      to: {
        path: [
          '^(node:)?(fs|net|http|https|child_process|dgram|os)(/|$)',
          '^packages/(kafka-io|service-kit|testkit)/',
          'node_modules/(kafkajs|pino|prom-client)/',
        ],
      },
    },
    {
      name: 'stages-are-pure',
      comment: 'stages/ hold pure functions; effects live in adapters/ and main.ts.',
      severity: 'error',
      from: { path: ['^(services|apps)/[^/]+/src/stages/', '^apps/evaluate/src/sequences/stages/'] },
      to: {
        path: [
          '^(node:)?(fs|net|http|https|child_process|dgram)(/|$)',
          '/src/adapters/',
          '^packages/kafka-io/',
        ],
      },
    },
    {
      name: 'testkit-only-in-tests',
      severity: 'error',
      from: { path: '^(packages|services|apps)/', pathNot: ['/(test|bench)/', '^packages/testkit/'] },
      to: { path: '^packages/testkit/' },
    },
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'declared-dependencies-only',
      comment: 'Name the package in the package.json of the workspace that imports it.',
      severity: 'error',
      from: { pathNot: ['^(scripts|benchmarks|tests)/', '/test/'] },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default'],
    },
  },
};
