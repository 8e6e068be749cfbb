-- What no service could use, by topic, service and reason, with the newest example.
SELECT topic, service, reason, count() AS records, argMax(detail, createdMs) AS newest_detail, argMax(offset, createdMs) AS newest_offset
FROM {database}.dead_letters FINAL
GROUP BY topic, service, reason
ORDER BY records DESC
