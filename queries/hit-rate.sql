-- Hit rate at K by policy version and scenario: are the items that the user viewed or clicked among the first K retrieved?
-- source retriever: hr_K, is the clicked item there. source job-runner: hr_viewed_K and hr_clicked_K, the share of them that is
-- there, beside popularity_* and random_*. Spans are weighed by their requests.
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
      mapFilter((name, value) -> match(name, '^(hr|popularity|random)_'), values)
    ) AS weighted
  FROM {database}.retrieval_metrics FINAL
  WHERE arrayExists(name -> match(name, '^(hr|popularity|random)_'), mapKeys(values))
)
GROUP BY policy_version, scenario, source
ORDER BY at DESC
LIMIT 60
