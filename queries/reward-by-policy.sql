-- Mean reward of the rollouts by the policy that made them and the ranker that scored them. Compare only inside one ranker version.
SELECT
  rankerVersion AS ranker_version,
  policyVersion AS policy_version,
  scenario,
  count() AS groups,
  round(avg(rewardMean), 5) AS reward,
  round(avg(rewardStd), 5) AS reward_std,
  round(avg(arrayAvg(arrayMap(c -> c.pCtr, candidates))), 5) AS p_ctr,
  round(avg(arrayAvg(arrayMap(c -> c.reward, arraySlice(arraySort(c -> c.rank, candidates), 1, 10)))), 5) AS reward_top10
FROM {database}.reward_batches FINAL
GROUP BY ranker_version, policy_version, scenario
ORDER BY max(createdMs) DESC
LIMIT 60
