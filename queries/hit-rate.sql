-- Hit rate at K by policy version and scenario: is the item that the user went on to click among the first K retrieved?
-- Spans are weighed by their requests.
SELECT
  version AS policy_version,
  scenario,
  source,
  max(fromUnixTimestamp64Milli(createdMs)) AS at,
  sum(weight) AS requests,
  mapApply((name, total) -> (name, round(total / requests, 4)), sumMap(weighted)) AS hit_rates
FROM (
  SELECT
    version,
    scenario,
    source,
    createdMs,
    if(mapContains(values, 'requests'), values['requests'], 1) AS weight,
    mapApply(
      (name, value) -> (name, value * weight),
      mapFilter((name, value) -> startsWith(name, 'hr_'), values)
    ) AS weighted
  FROM {database}.retrieval_metrics FINAL
  WHERE arrayExists(name -> startsWith(name, 'hr_'), mapKeys(values))
)
GROUP BY policy_version, scenario, source
ORDER BY at DESC
LIMIT 60
