-- Late and orphan events by topic, and by how much they missed the watermark.
SELECT topic, reason, count() AS records, round(quantile(0.5)(watermarkMs - eventTimeMs)) AS p50_behind_ms, max(watermarkMs - eventTimeMs) AS max_behind_ms
FROM {database}.late_events FINAL
GROUP BY topic, reason
ORDER BY records DESC
