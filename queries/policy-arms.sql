-- A/B of the closed loop: CTR, orders and paid value (GMV) per request by policy arm, and what each differs from the arm base by, with 95 % intervals.
-- A request is in one arm by the hash of its id, which bears the arm's name after an @; logging is the fixed policy. Only closed
-- exposures count. Intervals are mean +- 1.96 standard errors over requests (Welch).
WITH
  requests AS (
    SELECT
      exposure.requestId AS id,
      if(position(id, '@') = 0, 'logging', splitByChar('@', id)[2]) AS arm,
      avg(clicked) AS ctr,
      sum(toFloat64(bought)) AS orders,
      sum(buyValueCents) / 100 AS gmv
    FROM {database}.training_samples FINAL
    WHERE kind = 'FINAL'
    GROUP BY id
  ),
  arms AS (
    SELECT
      arm,
      count() AS requests,
      map('ctr', avg(ctr), 'orders', avg(orders), 'gmv', avg(gmv)) AS means,
      map('ctr', varSamp(ctr) / count(), 'orders', varSamp(orders) / count(), 'gmv', varSamp(gmv) / count()) AS variances
    FROM requests
    GROUP BY arm
  )
SELECT
  a.arm AS arm,
  a.requests AS requests,
  round(a.means['ctr'], 5) AS ctr,
  round(a.means['orders'], 5) AS orders_per_request,
  round(a.means['gmv'], 4) AS gmv_per_request,
  mapApply(
    (name, mean) -> (
      name,
      if(
        a.arm = 'base' OR b.requests = 0,
        [],
        arrayMap(
          z -> round(mean - b.means[name] + z * sqrt(a.variances[name] + b.variances[name]), 5),
          [0., -1.96, 1.96]
        )
      )
    ),
    a.means
  ) AS against_base_low_high
FROM arms AS a
LEFT JOIN arms AS b ON b.arm = 'base'
ORDER BY arm
