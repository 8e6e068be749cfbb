-- SID accuracy of the stream between one published policy and the next, by scenario.
SELECT
  p.policyVersion AS policy_version,
  m.scenario AS scenario,
  p.step AS step,
  round(avgIf(m.values['sid_accuracy_1'], mapContains(m.values, 'sid_accuracy_1')), 4) AS sid_accuracy_1,
  round(avgIf(m.values['sid_accuracy_2'], mapContains(m.values, 'sid_accuracy_2')), 4) AS sid_accuracy_2,
  round(avgIf(m.values['sid_accuracy_3'], mapContains(m.values, 'sid_accuracy_3')), 4) AS sid_accuracy_3,
  round(avgIf(m.values['loss'], mapContains(m.values, 'loss')), 4) AS loss
FROM {database}.training_metrics AS m FINAL
ASOF JOIN (
  SELECT 'trainer-retriever' AS source, policyVersion, step, createdMs
  FROM {database}.policy_versions FINAL
  WHERE model = 'RETRIEVER'
) AS p ON m.source = p.source AND m.createdMs >= p.createdMs
GROUP BY policy_version, scenario, step
ORDER BY step DESC, scenario
LIMIT 120
