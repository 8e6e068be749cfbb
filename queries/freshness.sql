-- Milliseconds from cause to effect per stage over the newest ten minutes: exposure or action to sample, rollout to reward, product change to SID.
WITH (SELECT max(_timestamp_ms) FROM {database}.exposures) - 600000 AS since
SELECT stage, count() AS records, round(quantile(0.5)(ms)) AS p50_ms, round(quantile(0.99)(ms)) AS p99_ms
FROM (
  SELECT concat('sample ', toString(kind)) AS stage, watermarkMs - exposure.eventTimeMs AS ms
  FROM {database}.training_samples FINAL WHERE _timestamp_ms >= since
  UNION ALL
  SELECT 'rollout to reward batch', createdMs - rolloutCreatedMs FROM {database}.reward_batches FINAL WHERE createdMs >= since
  UNION ALL
  SELECT 'product change to live SID', createdMs - validFromMs FROM {database}.live_sids FINAL WHERE validFromMs >= since
)
GROUP BY stage
ORDER BY stage
