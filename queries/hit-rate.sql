-- Hit rate at K by policy version and scenario: is the item that the user went on to view among the first K retrieved?
SELECT
  version AS policy_version,
  scenario,
  source,
  max(fromUnixTimestamp64Milli(createdMs)) AS at,
  mapFilter((name, value) -> startsWith(name, 'hr_'), maxMap(values)) AS hit_rates
FROM {database}.retrieval_metrics FINAL
WHERE arrayExists(name -> startsWith(name, 'hr_'), mapKeys(values))
GROUP BY policy_version, scenario, source
ORDER BY at DESC
LIMIT 60
