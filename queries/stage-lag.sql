-- Per topic: rows in ClickHouse, the newest record, and how far it is behind the newest record of any topic.
WITH (SELECT max(newest) FROM (SELECT max(_timestamp_ms) AS newest FROM merge('{database}', '^(exposures|clicks|training_metrics)$'))) AS now_ms
SELECT _table AS topic, count() AS rows, fromUnixTimestamp64Milli(max(_timestamp_ms)) AS newest, round((now_ms - max(_timestamp_ms)) / 1000, 1) AS behind_s
FROM merge('{database}', '^(exposures|clicks|buys|items|live_product_changes|item_sids|live_sids|training_samples|rollouts|reward_batches|policy_versions|training_metrics|late_events|dead_letters)$')
GROUP BY topic
ORDER BY topic
