-- Loss and SID accuracy at 1 per level by model and minute: predicted before the step trained on the batch;
-- masked: among the codes that go on to an existing SID.
SELECT
  toStartOfMinute(fromUnixTimestamp64Milli(createdMs)) AS minute,
  source,
  max(step) AS step,
  round(avgIf(values['loss'], mapContains(values, 'loss')), 4) AS loss,
  round(avgIf(values['sid_accuracy_1'], mapContains(values, 'sid_accuracy_1')), 4) AS sid_accuracy_1,
  round(avgIf(values['sid_accuracy_2'], mapContains(values, 'sid_accuracy_2')), 4) AS sid_accuracy_2,
  round(avgIf(values['sid_accuracy_3'], mapContains(values, 'sid_accuracy_3')), 4) AS sid_accuracy_3,
  round(avgIf(values['sid_accuracy_masked_1'], mapContains(values, 'sid_accuracy_masked_1')), 4) AS sid_accuracy_masked_1,
  round(avgIf(values['sid_accuracy_masked_2'], mapContains(values, 'sid_accuracy_masked_2')), 4) AS sid_accuracy_masked_2,
  round(avgIf(values['sid_accuracy_masked_3'], mapContains(values, 'sid_accuracy_masked_3')), 4) AS sid_accuracy_masked_3
FROM {database}.training_metrics FINAL
WHERE scenario = ''
GROUP BY minute, source
ORDER BY minute DESC, source
LIMIT 120
