-- Samples, click and buy rate by scenario and minute of the exposure, newest first. A FINAL per exposure counts once.
SELECT
  toStartOfMinute(fromUnixTimestamp64Milli(exposure.eventTimeMs)) AS minute,
  exposure.scenario AS scenario,
  count() AS finals,
  round(avg(clicked), 4) AS click_rate,
  round(avg(bought), 4) AS buy_rate,
  round(sum(buyValueCents) / 100, 2) AS bought_value,
  countIf(empty(sid)) AS without_sid
FROM {database}.training_samples FINAL
WHERE kind = 'FINAL'
GROUP BY minute, scenario
ORDER BY minute DESC, scenario
LIMIT 120
