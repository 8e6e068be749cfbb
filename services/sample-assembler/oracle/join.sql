-- The join once more, as a batch over everything in the logs. Parameters: {ooo}, {grace}, {maxDelay}, {freshness}, {skew},
-- {tick}, {H}, {positive}. Statements end with a semicolon at the end of a line.

-- Which rules of input a record breaks.
CREATE TABLE checked ENGINE = Memory AS
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
CREATE TABLE good ENGINE = Memory AS
SELECT *, greatest(newest - {ooo}, lead + append + {tick} - {ooo} - {maxDelay}) AS readAtMostW
FROM (
  SELECT *,
    max(t) OVER (PARTITION BY part ORDER BY append RANGE BETWEEN UNBOUNDED PRECEDING AND {freshness} FOLLOWING) AS newest,
    max(t - append) OVER (PARTITION BY part ORDER BY append RANGE BETWEEN UNBOUNDED PRECEDING AND {freshness} FOLLOWING) AS lead
  FROM checked WHERE empty(broken) AND processed
);

-- The first copy of each event decides; later ones are duplicates.
CREATE TABLE firsts ENGINE = Memory AS
SELECT g.*, l.reason AS lateReason, l.w AS lateW
FROM (SELECT * FROM good ORDER BY off LIMIT 1 BY topic, part, id) AS g
LEFT JOIN late AS l ON g.topic = l.topic AND g.part = l.part AND g.off = l.off;

CREATE TABLE x ENGINE = Memory AS
SELECT f.*, s.clickWindow AS clickWindow, s.buyWindow AS buyWindow,
  t + greatest(s.clickWindow, s.buyWindow) + {grace} AS closes
FROM firsts AS f INNER JOIN windows AS s ON f.scenario = s.scenario WHERE topic = 'exposures';

CREATE TABLE a ENGINE = Memory AS
SELECT *, t + {ooo} + (SELECT max(greatest(clickWindow, buyWindow)) FROM windows) + {grace} AS ends
FROM firsts WHERE topic != 'exposures';

-- Every exposure that an action could count for.
CREATE TABLE fits ENGINE = Memory AS
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
CREATE TABLE attributed ENGINE = Memory AS
SELECT topic, part, off, any(id) AS id, any(t) AS t, any(value) AS value, any(quantity) AS quantity, any(readAtMostW) AS readAtMostW,
  argMax(xid, (xt, xid)) AS xid, any(touch) = 1 AND argMax(xReadAtMostW, (xt, xid)) >= any(t) AS ambiguous, groupArray(xid) AS candidates
FROM fits WHERE lateReason = '' AND xLate = '' GROUP BY topic, part, off;

CREATE TABLE vague ENGINE = Memory AS
SELECT DISTINCT arrayJoin(candidates) AS xid FROM attributed WHERE ambiguous;

-- What an exposure may have been given: an action that is ambiguous counts for one of its candidates. Samples whose labels
-- cannot be told exactly have theirs between the sure actions and all of these.
CREATE TABLE bounds ENGINE = Memory AS
SELECT xid, groupArrayIf(t, topic = 'clicks') AS clickTs, groupArrayIf(t, topic = 'buys') AS buyTs,
  minIf(t, topic = 'clicks' AND sure) AS sureClickT, minIf(t, topic = 'buys' AND sure) AS sureBuyT,
  countIf(topic = 'clicks' AND sure) AS sureClicks, countIf(topic = 'buys' AND sure) AS sureBuys,
  sumIf(value, topic = 'buys') AS mostValue, sumIf(value, topic = 'buys' AND sure) AS leastValue,
  sumIf(quantity, topic = 'buys') AS mostQuantity, sumIf(quantity, topic = 'buys' AND sure) AS leastQuantity
FROM (SELECT topic, t, value, quantity, NOT ambiguous AS sure, arrayJoin(if(ambiguous, candidates, [xid])) AS xid FROM attributed)
GROUP BY xid;

CREATE TABLE labels ENGINE = Memory AS
SELECT xid, countIf(topic = 'clicks') AS clicks, countIf(topic = 'buys') AS buys,
  minIf(t, topic = 'clicks') AS clickT, minIf(t, topic = 'buys') AS buyT,
  sumIf(value, topic = 'buys') AS buyValue, sumIf(quantity, topic = 'buys') AS buyQuantity,
  groupArrayIf((t, value, quantity), topic = 'buys') AS allBuys, max(readAtMostW >= t) AS someBehind
FROM attributed GROUP BY xid;

-- The records that must have left: FINAL of each exposure that closed, and its CLICK and BUY.
CREATE TABLE judged ENGINE = Memory AS
SELECT x.id AS xid, x.part AS part, x.userId AS userId, x.itemId AS itemId, x.requestId AS requestId, x.r AS r, x.t AS xt, x.closes AS closes, x.body AS body,
  l.clicks AS clicks, l.buys AS buys, l.clickT AS clickT, l.buyT AS buyT, l.buyValue AS buyValue, l.buyQuantity AS buyQuantity, l.allBuys AS allBuys,
  x.id IN (SELECT xid FROM vague) AS isVague,
  isVague OR l.someBehind OR x.readAtMostW >= x.t AS isUnordered,
  clicks > 0 AND (buys = 0 OR (greatest(clickT, xt), clickT * 2) < (greatest(buyT, xt), buyT * 2 + 1)) AS clickFirst
FROM x LEFT JOIN labels AS l ON x.id = l.xid
WHERE x.lateReason = '' AND x.closes <= x.committedW;

CREATE TABLE expected ENGINE = Memory AS
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

-- Histories (next two): what each user did, newest first, with the categories that the item had and with the reading of
-- the exposure that an action belongs to.
CREATE TABLE did ENGINE = Memory AS
SELECT f.userId AS userId,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, itemId, xid, requestId, readAtMostW, lateReason, lateW, cats, xReadAtMostW, xLate, xLateW), topic = 'exposures')) AS exposures,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, itemId, xid, requestId, readAtMostW, lateReason, lateW, cats, xReadAtMostW, xLate, xLateW), topic = 'clicks')) AS clicks,
  arrayReverseSort(e -> (e.1, e.2), groupArrayIf((t, id, itemId, xid, requestId, readAtMostW, lateReason, lateW, cats, xReadAtMostW, xLate, xLateW), topic = 'buys')) AS buys
FROM (
  SELECT f.topic AS topic, f.t AS t, f.id AS id, f.userId AS userId, f.itemId AS itemId, f.readAtMostW AS readAtMostW, f.lateReason AS lateReason, f.lateW AS lateW,
    ifNull(f.exposureId, n.xid) AS xid, x.requestId AS requestId, i.cats AS cats,
    x.readAtMostW AS xReadAtMostW, x.lateReason AS xLate, x.lateW AS xLateW
  FROM firsts AS f
  LEFT JOIN attributed AS n ON f.topic = n.topic AND f.part = n.part AND f.off = n.off
  LEFT JOIN x ON ifNull(f.exposureId, n.xid) = x.id
  LEFT JOIN (SELECT itemId, arraySort(groupArray((validFrom, seq, category))) AS cats FROM items GROUP BY itemId) AS i ON f.itemId = i.itemId
) AS f GROUP BY userId;

-- When the watermark can first have reached a time: no event newer than that by more than {ooo} was in the log before, and
-- silence takes {maxDelay}. A sample leaves only when the tables were read to their end after it was due.
CREATE TABLE tide ENGINE = Memory AS
SELECT part, reach, min(append) AS since
FROM (SELECT part, append, max(t) OVER (PARTITION BY part ORDER BY append ROWS UNBOUNDED PRECEDING) AS reach FROM good)
GROUP BY part, reach;

CREATE TABLE dues ENGINE = Memory AS
SELECT e.xid AS xid, e.kind AS kind,
  least(if(n.since = 0, e.due + {maxDelay} - l.lead, n.since), e.due + {maxDelay} - l.lead) - {tick} AS since
FROM (SELECT xid, kind, part, if(lenient, xt, dueMs) + {ooo} AS due FROM expected) AS e
ASOF LEFT JOIN tide AS n ON e.part = n.part AND e.due <= n.reach
LEFT JOIN (SELECT part, max(t - append) AS lead FROM good GROUP BY part) AS l ON e.part = l.part;

-- Items and SIDs by what was valid from when, tombstones with an empty value included.
CREATE TABLE itemVersions ENGINE = Memory AS
SELECT itemId AS id, arraySort(groupArray((validFrom, seq, ts, facts, visible))) AS versions FROM items GROUP BY itemId;

CREATE TABLE sidVersions ENGINE = Memory AS
SELECT id, arraySort(groupArray((live = 0, version, validFrom, seq, ts, sid, visible))) AS versions,
  arraySort(groupArrayIf((version, validFrom, seq, ts, selling), live = 1)) AS rooms
FROM sids GROUP BY id;

-- What each sample may say of item, SID and products: one answer for each state that the tables may have had, the one
-- that was visible when the sample cannot have left yet, and those of rows that came from then on until it was written. In a
-- codebook version the newest entry counts; one without value leaves the answer to an older codebook version, and item SIDs
-- come before those of rooms. The states themselves are not kept: a room has one for each change of its products.
CREATE TABLE answers ENGINE = Memory AS
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

CREATE TABLE compared ENGINE = Memory AS
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

-- An event whose watermark at reading may be that of the sample or a later one may be in its history or not. A late
-- exposure was read at the watermark it was reported with, so only a CLICK or BUY that left at the same one is unsure.
-- An action of another exposure of the request is left out only once that exposure was read, since until then nothing
-- tells what request the action is of.
-- The lists themselves are not kept, and a few samples are taken at a time: with all that their users did, half a million
-- of them are more than the memory of a machine.
CREATE TABLE histories ENGINE = Memory AS
SELECT xid, kind, unsure, differences FROM (
SELECT s.exposureId AS xid, s.kind AS kind,
  arrayMap((list, kind) -> arrayFilter(h -> h.1 < s.r AND h.4 != s.exposureId AND NOT (h.5 = s.requestId AND (kind = 1 OR if(h.11 = 'LATE', h.12, h.10) < s.w)), list), [d.exposures, d.clicks, d.buys], [1, 2, 3]) AS before,
  arrayMap(list -> arrayFilter(h -> h.6 < s.w OR h.7 = '' OR h.8 < s.w, list), before) AS seen,
  arrayMap((list, kind) -> arrayExists(h ->
    (h.6 >= s.w AND NOT (h.7 = 'LATE' AND (h.8 < s.w OR (kind = 1 AND (h.8 > s.w OR s.kind = 'FINAL')))))
    OR (h.5 = s.requestId AND NOT (h.11 = 'LATE' AND (h.12 > s.w OR s.kind = 'FINAL'))), list), before, [1, 2, 3]) AS unsure,
  arrayMap(list -> lower(hex(MD5(arrayStringConcat(arrayMap(h -> concat(h.3, '@', toString(h.1), '@', arrayLast(c -> c.1 <= s.r, h.9).3), arraySlice(list, 1, {H})), '|')))), seen) AS expectedLists,
  arrayFilter(f -> f != '', [
    if(NOT unsure[1] AND s.hExposures != expectedLists[1], 'history.exposures', ''),
    if(NOT unsure[2] AND s.hClicks != expectedLists[2], 'history.clicks', ''),
    if(NOT unsure[3] AND s.hBuys != expectedLists[3], 'history.buys', '')]) AS differences
FROM (SELECT * FROM samples WHERE (exposureId, kind) IN (SELECT xid, kind FROM expected)) AS s
INNER JOIN did AS d ON s.userId = d.userId
)
SETTINGS max_block_size = 256, max_threads = 1;

-- Each input record is exactly one of counted, late, dead, waiting, duplicate; nothing is reported without a reason.
CREATE TABLE fates ENGINE = Memory AS
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
CREATE TABLE extra ENGINE = Memory AS
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
