/** Table of SID accuracies in Markdown, as in table 1 of the paper. */
import { SCENARIOS } from '../log/world-log.ts';
import type { PassFigures } from '../training/pass-figures.ts';

/** What the last pass of one form of OneMall foresaw. */
export interface ModelAccuracy {
  name: string;
  pass: PassFigures;
}

/** Accuracy@1 given the true codes before, in percent, by level: over all codes of the scenario, and among those that SIDs go on with. */
export function accuracyTable(models: readonly ModelAccuracy[]): string[] {
  const shares = (hits: readonly number[], samples: number): string =>
    hits.map((h) => (samples > 0 ? ((100 * h) / samples).toFixed(1) : '')).join(' | ');
  return [
    'SID accuracy of the last pass, each sample before it is trained, given the true codes before, %: over all codes by the scores of the network alone, over the children of the trie by what the beam orders them by, a target outside the trie added; loss: cross-entropy of the three codes in nats, mean of the pass and of its last tenth',
    '',
    '| scenario | list | samples | outside the trie | level 1 | level 2 | level 3 | level 1, trie | level 2, trie | level 3, trie | loss | final loss |',
    '|---|---|---|---|---|---|---|---|---|---|---|---|',
    ...SCENARIOS.flatMap((scenario) =>
      models.flatMap(({ name, pass }) => {
        const own = pass.all[scenario];
        if (!own) return [];
        const all = shares(own.hits, own.samples);
        const masked = shares(own.maskedHits, own.maskedSamples);
        const losses = [own, pass.end[scenario]].map(
          (of) => of?.ntp.reduce((a, b) => a + b).toFixed(3) ?? '',
        );
        return [
          `| ${scenario} | ${name} | ${own.samples} | ${own.outsideTrie} | ${all} | ${masked} | ${losses.join(' | ')} |`,
        ];
      }),
    ),
  ];
}
