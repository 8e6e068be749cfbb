-- The join once more, as a batch over everything in the logs. Parameters: {ooo}, {grace}, {maxDelay}, {freshness}, {skew},
-- {tick}, {H}, {positive}. Statements end with a semicolon at the end of a line. Tables lie on disk, for half an hour of
-- traffic in memory is gigabytes; those that other statements look rows up in do not.

-- Which rules of input a record breaks.
CREATE TABLE checked ENGINE = Log AS
SELECT e.*, e.off < c.off AS processed, c.w AS committedW,
  arrayFilter(x -> x != '', [
    if(id = '' OR userId = '' OR itemId = '' OR exposureId = '' OR (topic = 'exposures' AND requestId = ''), 'EMPTY_ID', ''),
    if(greatest(lengthUTF8(id), lengthUTF8(userId), lengthUTF8(itemId), lengthUTF8(ifNull(exposureId, '')), lengthUTF8(requestId)) > 512, 'TOO_LARGE', ''),
    if(key != userId, 'KEY_MISMATCH', ''),
    if(t < 0 OR t > append + {skew} OR r < 0 OR r > append + {skew}, 'TIME_OUT_OF_RANGE', ''),
    if(topic = 'exposures' AND scenario NOT IN (SELECT scenario FROM windows), 'UNKNOWN_SCENARIO', ''),
    if(finite = 0, 'NOT_A_NUMBER', ''),
    if(price < 0 OR quantity < 1 OR least < 0, 'NEGATIVE_VALUE', '')]) AS broken
FROM events AS e LEFT JOIN commits AS c ON e.topic = c.topic AND e.part = c.part;

-- An upper bound of the watermark when each record was read, whenever that was, from append times alone. An input found
-- empty holds nothing until {freshness} ms after that fetch had left, and a record that was not there came later: so no
-- event appended more than {freshness} ms after the record can have moved the watermark before it. Silence moves it on by
-- no more than lay between the newest event and the record.
CREATE TABLE good ENGINE = Log AS
SELECT *, greatest(newest - {ooo}, lead + append + {tick} - {ooo} - {maxDelay}) AS readAtMostW
FROM (
  SELECT *,
    max(t) OVER (PARTITION BY part ORDER BY append RANGE BETWEEN UNBOUNDED PRECEDING AND {freshness} FOLLOWING) AS newest,
    max(t - append) OVER (PARTITION BY part ORDER BY append RANGE BETWEEN UNBOUNDED PRECEDING AND {freshness} FOLLOWING) AS lead
  FROM checked WHERE empty(broken) AND processed
);

-- The first copy of each event decides; later ones are duplicates.
CREATE TABLE firsts ENGINE = Log AS
SELECT g.*, l.reason AS lateReason, l.w AS lateW
FROM (SELECT * FROM good ORDER BY off LIMIT 1 BY topic, part, id) AS g
LEFT JOIN late AS l ON g.topic = l.topic AND g.part = l.part AND g.off = l.off;

CREATE TABLE x ENGINE = Log AS
SELECT f.*, s.clickWindow AS clickWindow, s.buyWindow AS buyWindow,
  t + greatest(s.clickWindow, s.buyWindow) + {grace} AS closes,
  -- The watermark at which it was read lies between these: a late one says it, any other was read before it closed.
  least(readAtMostW, if(lateReason = '', closes - 1, lateW)) AS mostW, if(lateReason = '', 0, lateW) AS leastW
FROM firsts AS f INNER JOIN windows AS s ON f.scenario = s.scenario WHERE topic = 'exposures';

CREATE TABLE a ENGINE = Log AS
SELECT *, t + {ooo} + (SELECT max(greatest(clickWindow, buyWindow)) FROM windows) + {grace} AS ends
FROM firsts WHERE topic != 'exposures';

-- Every exposure that an action could count for.
CREATE TABLE fits ENGINE = Log AS
SELECT a.topic AS topic, a.part AS part, a.off AS off, a.id AS id, a.t AS t, a.price * a.quantity AS value, a.quantity AS quantity,
  a.lateReason AS lateReason, a.lateW AS lateW, a.ends AS ends, a.readAtMostW AS readAtMostW, 0 AS touch,
  x.id AS xid, x.t AS xt, x.closes AS closes, x.lateReason AS xLate, x.lateW AS xLateW, x.readAtMostW AS xReadAtMostW
FROM a INNER JOIN x ON a.part = x.part AND a.exposureId = x.id AND a.userId = x.userId
WHERE a.t - x.t >= -{ooo} AND a.t - x.t <= if(a.topic = 'clicks', x.clickWindow, x.buyWindow)
UNION ALL
SELECT a.topic, a.part, a.off, a.id, a.t, a.price * a.quantity, a.quantity, a.lateReason, a.lateW, a.ends, a.readAtMostW, 1,
  x.id, x.t, x.closes, x.lateReason, x.lateW, x.readAtMostW
FROM a INNER JOIN x ON a.part = x.part AND a.userId = x.userId AND a.itemId = x.itemId
WHERE a.exposureId IS NULL AND x.t <= a.t AND a.t - x.t <= if(a.topic = 'clicks', x.clickWindow, x.buyWindow);

-- Last touch takes the latest exposure. Where that one may have been read after the decision, another is right as well.
CREATE TABLE attributed ENGINE = Log AS
SELECT topic, part, off, any(id) AS id, any(t) AS t, any(value) AS value, any(quantity) AS quantity, any(readAtMostW) AS readAtMostW,
  argMax(xid, (xt, xid)) AS xid, any(touch) = 1 AND argMax(xReadAtMostW, (xt, xid)) >= any(t) AS ambiguous, groupArray(xid) AS candidates,
  max(closes) AS closes
FROM fits WHERE lateReason = '' AND xLate = '' GROUP BY topic, part, off;

CREATE TABLE vague ENGINE = Log AS
SELECT DISTINCT arrayJoin(candidates) AS xid FROM attributed WHERE ambiguous;

-- What an exposure may have been given: an action that is ambiguous counts for one of its candidates. Samples whose labels
-- cannot be told exactly have theirs between the sure actions and all of these.
CREATE TABLE bounds ENGINE = Log AS
SELECT xid, groupArrayIf(t, topic = 'clicks') AS clickTs, groupArrayIf(t, topic = 'buys') AS buyTs,
  minIf(t, topic = 'clicks' AND sure) AS sureClickT, minIf(t, topic = 'buys' AND sure) AS sureBuyT,
  countIf(topic = 'clicks' AND sure) AS sureClicks, countIf(topic = 'buys' AND sure) AS sureBuys,
  sumIf(value, topic = 'buys') AS mostValue, sumIf(value, topic = 'buys' AND sure) AS leastValue,
  sumIf(quantity, topic = 'buys') AS mostQuantity, sumIf(quantity, topic = 'buys' AND sure) AS leastQuantity
FROM (SELECT topic, t, value, quantity, NOT ambiguous AS sure, arrayJoin(if(ambiguous, candidates, [xid])) AS xid FROM attributed)
GROUP BY xid;

CREATE TABLE labels ENGINE = Log AS
SELECT xid, countIf(topic = 'clicks') AS clicks, countIf(topic = 'buys') AS buys,
  minIf(t, topic = 'clicks') AS clickT, minIf(t, topic = 'buys') AS buyT,
  sumIf(value, topic = 'buys') AS buyValue, sumIf(quantity, topic = 'buys') AS buyQuantity,
  groupArrayIf((t, value, quantity), topic = 'buys') AS allBuys, max(readAtMostW >= t) AS someBehind
FROM attributed GROUP BY xid;

-- The records that must have left: FINAL of each exposure that closed, and its CLICK and BUY.
CREATE TABLE judged ENGINE = Log AS
SELECT x.id AS xid, x.part AS part, x.userId AS userId, x.itemId AS itemId, x.requestId AS requestId, x.r AS r, x.t AS xt, x.closes AS closes, x.body AS body,
  l.clicks AS clicks, l.buys AS buys, l.clickT AS clickT, l.buyT AS buyT, l.buyValue AS buyValue, l.buyQuantity AS buyQuantity, l.allBuys AS allBuys,
  x.id IN (SELECT xid FROM vague) AS isVague,
  isVague OR l.someBehind OR x.readAtMostW >= x.t AS isUnordered,
  clicks > 0 AND (buys = 0 OR (greatest(clickT, xt), clickT * 2) < (greatest(buyT, xt), buyT * 2 + 1)) AS clickFirst
FROM x LEFT JOIN labels AS l ON x.id = l.xid
WHERE x.lateReason = '' AND x.closes <= x.committedW;

CREATE TABLE expected ENGINE = Log AS
SELECT xid, part, userId, itemId, requestId, r, xt, body, 'FINAL' AS kind, isVague AS lenient, closes AS dueMs,
  clicks > 0 AS clicked, if(clicks > 0, greatest(0, clickT - xt), NULL) AS clickDelay,
  buys > 0 AS bought, if(buys > 0, greatest(0, buyT - xt), NULL) AS buyDelay, buyValue, buyQuantity,
  {positive} = 0 AND (clicked OR bought) AS firstPositive
FROM judged
UNION ALL
SELECT xid, part, userId, itemId, requestId, r, xt, body, 'CLICK', isUnordered, greatest(clickT, xt),
  1, greatest(0, clickT - xt), bought, if(bought, greatest(0, buyT - xt), NULL),
  arraySum(b -> b.2, before), arraySum(b -> b.3, before), clickFirst
FROM (SELECT *, arrayFilter(b -> b.1 < clickT, allBuys) AS before, notEmpty(before) AS bought FROM judged WHERE clicks > 0 AND {positive})
UNION ALL
SELECT xid, part, userId, itemId, requestId, r, xt, body, 'BUY', isUnordered, greatest(buyT, xt),
  clicked, if(clicked, greatest(0, clickT - xt), NULL), 1, greatest(0, buyT - xt),
  arraySum(b -> b.2, before), arraySum(b -> b.3, before), NOT clickFirst
FROM (SELECT *, arrayFilter(b -> b.1 <= buyT, allBuys) AS before, clicks > 0 AND clickT <= buyT AS clicked FROM judged WHERE buys > 0 AND {positive});

-- Histories (next three): what each user did, newest first. Of each event: 1 its time, 2 item, 3 exposure and 4 that one's
-- request, the watermark at which it was read 5 at most and 6 at least, and 7 and 8 the same of that exposure. An action that
-- counts was read before its exposure closed. Ids are hashes, for each sample meets everything that its user did.
CREATE TABLE did ENGINE = Join(ANY, LEFT, userId) AS
SELECT userId,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, what), topic = 'exposures')).3 AS exposures,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, what), topic = 'clicks')).3 AS clicks,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, what), topic = 'buys')).3 AS buys
FROM (
  SELECT f.topic AS topic, f.t AS t, f.id AS id, f.userId AS userId, (
    f.t, f.itemId, sipHash64(ifNull(f.exposureId, n.xid)), sipHash64(x.requestId),
    multiIf(f.topic = 'exposures', x.mostW, f.lateReason != '', least(f.readAtMostW, f.lateW), n.closes > 0, least(f.readAtMostW, n.closes - 1), f.readAtMostW),
    if(f.topic = 'exposures', x.leastW, 0), x.mostW, x.leastW) AS what
  FROM firsts AS f
  LEFT JOIN attributed AS n ON f.topic = n.topic AND f.part = n.part AND f.off = n.off
  LEFT JOIN x ON ifNull(f.exposureId, n.xid) = x.id
) GROUP BY userId;

CREATE TABLE categories ENGINE = Join(ANY, LEFT, itemId) AS
SELECT itemId, arraySort(groupArray((validFrom, seq, category))) AS versions FROM items GROUP BY itemId;

-- When the watermark can first have reached a time: no event newer than that by more than {ooo} was in the log before, and
-- silence takes {maxDelay}. A sample leaves only when the tables were read to their end after it was due.
CREATE TABLE tide ENGINE = Log AS
SELECT part, reach, min(append) AS since
FROM (SELECT part, append, max(t) OVER (PARTITION BY part ORDER BY append ROWS UNBOUNDED PRECEDING) AS reach FROM good)
GROUP BY part, reach;

CREATE TABLE dues ENGINE = Log AS
SELECT e.xid AS xid, e.kind AS kind,
  least(if(n.since = 0, e.due + {maxDelay} - l.lead, n.since), e.due + {maxDelay} - l.lead) - {tick} AS since
FROM (SELECT xid, kind, part, if(lenient, xt, dueMs) + {ooo} AS due FROM expected) AS e
ASOF LEFT JOIN tide AS n ON e.part = n.part AND e.due <= n.reach
LEFT JOIN (SELECT part, max(t - append) AS lead FROM good GROUP BY part) AS l ON e.part = l.part;

-- Items and SIDs by what was valid from when, tombstones with an empty value included.
CREATE TABLE itemVersions ENGINE = Log AS
SELECT itemId AS id, arraySort(groupArray((validFrom, seq, ts, facts, visible))) AS versions FROM items GROUP BY itemId;

CREATE TABLE sidVersions ENGINE = Log AS
SELECT id, arraySort(groupArray((live = 0, version, validFrom, seq, ts, sid, visible))) AS versions,
  arraySort(groupArrayIf((version, validFrom, seq, ts, selling), live = 1)) AS rooms
FROM sids GROUP BY id;

-- What each sample may say of item, SID and products: one answer for each state that the tables may have had, the one
-- that was visible when the sample cannot have left yet, and those of rows that came from then on until it was written. In a
-- codebook version the newest entry counts; one without value leaves the answer to an older codebook version, and item SIDs
-- come before those of rooms. The states themselves are not kept: a room has one for each change of its products.
CREATE TABLE answers ENGINE = Log AS
SELECT xid, kind, items, sids, selling FROM (
SELECT s.exposureId AS xid, s.kind AS kind,
  arrayReduce('max', arrayPushFront(arrayMap(e -> e.3, arrayFilter(e -> e.5 < d.since, i.versions)), 0)) AS itemsSurely,
  arrayDistinct(arrayPushFront(arrayFilter(at -> at > itemsSurely AND at <= s.ts, i.versions.3), itemsSurely)) AS itemMoments,
  arrayMap(at -> arrayLast(e -> e.1 <= s.r AND e.3 <= at, i.versions).4, itemMoments) AS items,
  arrayReduce('max', arrayPushFront(arrayMap(e -> e.5, arrayFilter(e -> e.7 < d.since, v.versions)), 0)) AS sidsSurely,
  arrayDistinct(arrayPushFront(arrayFilter(at -> at > sidsSurely AND at <= s.ts, v.versions.5), sidsSurely)) AS moments,
  arrayMap(at -> arrayFilter(e -> e.3 <= s.r AND e.5 <= at, v.versions), moments) AS sidsThen,
  arrayMap(then -> arrayLast(e -> e.6 != '' AND e = arrayLast(o -> o.1 = e.1 AND o.2 = e.2, then), then).6, sidsThen) AS sids,
  arrayMap(at -> arrayFilter(e -> e.2 <= s.r AND e.4 <= at, v.rooms), moments) AS roomsThen,
  arrayMap(then -> arrayLast(e -> e.5 != '' AND e = arrayLast(o -> o.1 = e.1, then), then).5, roomsThen) AS selling
FROM samples AS s
LEFT JOIN dues AS d ON s.exposureId = d.xid AND s.kind = d.kind
LEFT JOIN itemVersions AS i ON s.itemId = i.id
LEFT JOIN sidVersions AS v ON s.itemId = v.id
)
SETTINGS max_block_size = 256;

CREATE TABLE compared ENGINE = Log AS
SELECT e.xid AS xid, e.kind AS kind, n > 0 AS isThere, n, e.lenient AS lenient,
  arrayFilter(f -> f != '', [
    if(s.body != e.body, 'exposure', ''),
    if(s.w < e.dueMs AND NOT e.lenient, 'watermark', ''),
    if(NOT e.lenient AND s.firstPositive != e.firstPositive, 'firstPositive', ''),
    if(NOT e.lenient AND s.clicked != e.clicked, 'clicked', ''),
    if(NOT e.lenient AND ifNull(s.clickDelay, -1) != ifNull(e.clickDelay, -1), 'clickDelayMs', ''),
    if(NOT e.lenient AND s.bought != e.bought, 'bought', ''),
    if(NOT e.lenient AND ifNull(s.buyDelay, -1) != ifNull(e.buyDelay, -1), 'buyDelayMs', ''),
    if(NOT e.lenient AND s.buyValue != e.buyValue, 'buyValueCents', ''),
    if(NOT e.lenient AND s.buyQuantity != e.buyQuantity, 'buyQuantity', ''),
    if(e.lenient AND s.clicked AND NOT has(arrayMap(t -> greatest(0, t - e.xt), b.clickTs), ifNull(s.clickDelay, -1)), 'clickDelayMs: no such click', ''),
    if(e.lenient AND s.bought AND NOT has(arrayMap(t -> greatest(0, t - e.xt), b.buyTs), ifNull(s.buyDelay, -1)), 'buyDelayMs: no such buy', ''),
    if(e.lenient AND (s.buyValue > b.mostValue OR s.buyQuantity > b.mostQuantity), 'more than was bought', ''),
    if(e.lenient AND e.kind = 'FINAL' AND b.sureClicks > 0 AND (NOT s.clicked OR ifNull(s.clickDelay, 0) > greatest(0, b.sureClickT - e.xt)), 'a click is left out', ''),
    if(e.lenient AND e.kind = 'FINAL' AND b.sureBuys > 0 AND (NOT s.bought OR ifNull(s.buyDelay, 0) > greatest(0, b.sureBuyT - e.xt)), 'a buy is left out', ''),
    if(e.lenient AND e.kind = 'FINAL' AND (s.buyValue < b.leastValue OR s.buyQuantity < b.leastQuantity), 'less than was bought', ''),
    if(NOT has(n.items, s.item), 'item', ''),
    if(NOT has(n.sids, s.sid), 'sid', ''),
    if(s.item != '' AND NOT has(arrayMap(a -> if(a = '', '[]', a), n.selling), s.selling), 'sellingItemIds', '')
  ]) AS differences
FROM expected AS e
LEFT JOIN (SELECT *, count() OVER (PARTITION BY exposureId, kind) AS n FROM samples) AS s ON e.xid = s.exposureId AND e.kind = s.kind
LEFT JOIN answers AS n ON e.xid = n.xid AND e.kind = n.kind
LEFT JOIN bounds AS b ON e.xid = b.xid;

-- What was read below the sample's watermark is in its history, what was read at that of a FINAL or above it is not; CLICK
-- and BUY may leave after events that came at theirs. An action of another exposure of the request is left out only once that
-- exposure was read, since until then nothing tells what request the action is of. Events that this leaves open are taken as
-- the sample has them: its list must be the one that the sure events and those make, so much of it as is not older than the
-- H-th sure one. Of equal entries it has the sure ones first. A few samples are taken at a time: with all that their users did,
-- half a million of them are more than the memory of a machine.
CREATE TABLE histories ENGINE = Log AS
SELECT xid, kind, field, notEmpty(others) AS unsure, carried != expected AS different FROM (
SELECT xid, kind, field, carried,
  arrayFilter(h -> h.1 < r AND h.3 != ownHash AND h.6 < after AND NOT (h.4 = requestHash AND (field = 'exposures' OR h.7 < w)), list) AS possible,
  arrayMap(h -> h.5 < w AND (h.4 != requestHash OR h.8 >= after), possible) AS areSure,
  arrayCount((isSure, n) -> n - isSure < {H}, areSure, arrayCumSum(areSure)) AS numNear,
  arrayMap((h, isSure, i) -> (i, isSure, concat(h.2, '@', toString(h.1), '@', arrayLast(c -> c.1 <= r, joinGet('categories', 'versions', h.2)).3)),
    arraySlice(possible, 1, numNear), arraySlice(areSure, 1, numNear), range(numNear)) AS near,
  arrayFilter(e -> e.2, near) AS surely,
  arrayFilter(e -> NOT e.2, near) AS others,
  arraySlice(arrayEnumerateUniq(arrayConcat(surely.3, others.3)), length(surely) + 1) AS nth,
  arrayFilter((e, n) -> countEqual(carried, e.3) >= n, others, nth) AS held,
  arraySlice(arraySort(arrayConcat(surely, held)), 1, {H}).3 AS expected
FROM (
  SELECT exposureId AS xid, kind, r, w, w + (kind != 'FINAL') AS after, sipHash64(exposureId) AS ownHash, sipHash64(requestId) AS requestHash,
    [joinGet('did', 'exposures', userId), joinGet('did', 'clicks', userId), joinGet('did', 'buys', userId)] AS lists,
    [hExposures, hClicks, hBuys] AS carrieds
  FROM samples WHERE (exposureId, kind) IN (SELECT xid, kind FROM expected)
) ARRAY JOIN lists AS list, carrieds AS carried, ['exposures', 'clicks', 'buys'] AS field
)
SETTINGS max_block_size = 256, max_threads = 1;

-- Each input record is exactly one of counted, late, dead, waiting, duplicate; nothing is reported without a reason.
CREATE TABLE fates ENGINE = Log AS
SELECT topic, part, off, id,
  isDead AS dead, isLate AS late, NOT isDead AND NOT isLate AND isCopy AS duplicate,
  NOT isDead AND NOT isLate AND NOT isCopy AND (topic = 'exposures' OR isCounted) AS counted,
  NOT isDead AND NOT isLate AND NOT isCopy AND topic != 'exposures' AND NOT isCounted AND ends > committedW AS waiting,
  arrayFilter(f -> f != '', [
    if(dead + late + duplicate + counted + waiting != 1, 'no single fate', ''),
    if(isDead != notEmpty(broken), 'dead letter', ''),
    if(isDead AND NOT has(broken, deadReason), 'reason of the dead letter', ''),
    if(lateReason = 'LATE' AND topic = 'exposures' AND closes > lateW, 'late although still open', ''),
    if(lateReason = 'LATE' AND topic != 'exposures' AND NOT isCopy AND ends > lateW AND openUntil > lateW, 'late although its exposure was open', ''),
    if(lateReason = 'ORPHAN' AND (isCounted OR ends > lateW), 'orphan although its exposure is there', ''),
    if(lateReason = 'LATE' AND lateW > 0 AND t >= readAtMostW AND (takenAtW = 0 OR lateW < takenAtW), 'late although in order', '')
  ]) AS wrong
FROM (
  SELECT c.topic AS topic, c.part AS part, c.off AS off, c.id AS id, c.t AS t, c.broken AS broken, c.committedW AS committedW,
    d.reason AS deadReason, d.reason != '' AS isDead, l.reason AS lateReason, l.w AS lateW, l.reason != '' AS isLate,
    g.readAtMostW AS readAtMostW, k.takenAtW AS takenAtW, f.id = '' AS isCopy, x.closes AS closes, a.ends AS ends, m.openUntil > 0 AS isCounted, if(m.sure, m.openUntil, 0) AS openUntil
  FROM (SELECT * FROM checked WHERE processed) AS c
  LEFT JOIN dead AS d ON c.topic = d.topic AND c.part = d.part AND c.off = d.off
  LEFT JOIN late AS l ON c.topic = l.topic AND c.part = l.part AND c.off = l.off
  LEFT JOIN good AS g ON c.topic = g.topic AND c.part = g.part AND c.off = g.off
  LEFT JOIN firsts AS f ON c.topic = f.topic AND c.part = f.part AND c.off = f.off
  LEFT JOIN (SELECT * FROM x) AS x ON c.topic = x.topic AND c.part = x.part AND c.off = x.off
  LEFT JOIN (SELECT * FROM a) AS a ON c.topic = a.topic AND c.part = a.part AND c.off = a.off
  LEFT JOIN (
    SELECT topic, part, off, argMax(closes, (xt, xid)) AS openUntil,
      NOT any(touch) OR (argMax(xReadAtMostW, (xt, xid)) < any(t) AND countIf(xLate != '') = 0) AS sure
    FROM fits GROUP BY topic, part, off HAVING countIf(xLate = '') > 0) AS m
    ON c.topic = m.topic AND c.part = m.part AND c.off = m.off
  -- A late exposure takes the actions that waited for it along, however punctual they were.
  LEFT JOIN (SELECT topic, part, off, min(xLateW) AS takenAtW FROM fits WHERE xLate != '' GROUP BY topic, part, off) AS k
    ON c.topic = k.topic AND c.part = k.part AND c.off = k.off
);

-- Samples that nothing explains.
CREATE TABLE extra ENGINE = Log AS
SELECT exposureId AS xid, kind, 'no exposure' AS why FROM samples
WHERE exposureId NOT IN (SELECT id FROM checked WHERE topic = 'exposures' AND empty(broken))
   OR exposureId IN (SELECT id FROM x WHERE lateReason != '')
UNION ALL
SELECT xid, kind, 'more than one' FROM compared WHERE n > 1
UNION ALL
SELECT exposureId, kind, 'no such action' FROM samples
WHERE kind != 'FINAL' AND exposureId IN (SELECT xid FROM judged WHERE NOT isVague) AND (exposureId, kind) NOT IN (SELECT xid, kind FROM expected)
UNION ALL
SELECT exposureId, 'FINAL', 'first positives' FROM samples
WHERE exposureId IN (SELECT xid FROM judged)
GROUP BY exposureId HAVING sum(firstPositive) != max(clicked OR bought);
