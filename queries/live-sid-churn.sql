-- Live rooms whose semantic ID changed, by minute and reason, and how long a change took to be published.
SELECT
  toStartOfMinute(fromUnixTimestamp64Milli(createdMs)) AS minute,
  reason,
  count() AS published,
  uniqExact(liveId) AS rooms,
  round(avg(length(sellingItemIds)), 2) AS products_on_sale,
  round(quantile(0.5)(createdMs - validFromMs)) AS p50_staleness_ms,
  round(quantile(0.99)(createdMs - validFromMs)) AS p99_staleness_ms
FROM {database}.live_sids FINAL
WHERE validFromMs > 0
GROUP BY minute, reason
ORDER BY minute DESC, reason
LIMIT 120
