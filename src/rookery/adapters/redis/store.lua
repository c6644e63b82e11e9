-- Users, follows and tweets, as functions: each is atomic and one round trip.
--
-- All keys of a shard begin with one base, which holds their hash tag. A user lies in one shard with all that is his:
--   user:<id>       hash  n name, d display name, a admin, x deleted, f fan-out and s since when, v of his follows
--   password:<id>   his slow hash
--   tokens:<id>     set   hashes of his tokens
--   following:<id>  zset  followee, time; in the order of ids, as its scores are 0
--   followers:<id>  zset  follower, version of the change; gone:<id> is a hash of those that went, to their versions
--   unfollowed:<id> zset  followees by time
--   tweet:<id>      see value_of in rows.py; live:<author> and dead:<author> are zsets of their ids
-- and for all users of the shard
--   users and to_purge zsets, moving set (not plainly pushed), unfollows zset (time, follower, followee)
-- Elsewhere may lie, each in the shard of its own key
--   names zset (name key, 0, user), token_owners zset (hash, user), homes hash (tweet -> shard),
--   keys hash (idempotency key -> digest, time, state, made), key_times zset (time, key), pending and counted zsets
--   owed zset       what of a write is yet to be done in other shards
--   begun:<claim>   what a write whose key was claimed so decided; '' if it was refused
--
-- A write is one operation that decides and others that follow from it. Those of its own shard are done with it, and
-- the others are owed until whoever called has done them. They can be done twice, and late.

local DAY = 24 * 60 * 60
local GONE_KEPT = 7 * DAY -- far longer than anything is owed while anybody runs

local ops = {}

local function lookup(key, prefix) -- the member of a zset that begins so
    local last = prefix .. '\255\255\255\255\255\255\255\255\255'
    return redis.call('ZRANGEBYLEX', key, '[' .. prefix, '[' .. last, 'LIMIT', 0, 1)[1]
end

local function number_of(bytes)
    return (struct.unpack('>I' .. #bytes, bytes))
end

local function is_live(base, user)
    local found = redis.call('HMGET', base .. 'user:' .. user, 'n', 'x')
    return found[1] and not found[2]
end

local function is_deleted(base, user)
    return redis.call('HEXISTS', base .. 'user:' .. user, 'x') == 1
end

-- A row of a deleted user came after his purge, or may have.
local function purge_again(base, user)
    if is_deleted(base, user) then redis.call('ZADD', base .. 'to_purge', 0, user) end
end

-- Users

local function owner_of(base, name)
    for _, member in ipairs(redis.call('ZRANGEBYLEX', base .. 'names', '[' .. name .. '\0', '(' .. name .. '\1')) do
        if #member == #name + 17 then return string.sub(member, -16) end
    end
    return false
end

-- name key, user
function ops.claim_name(base, args)
    local owner = owner_of(base, args[1])
    if owner and owner ~= args[2] then return nil, 'name_taken' end
    if not owner then redis.call('ZADD', base .. 'names', 0, args[1] .. '\0' .. args[2]) end
    return {}
end

-- user, name, display name, admin, password hash, token hash
function ops.put_user(base, args)
    local key = base .. 'user:' .. args[1]
    if redis.call('EXISTS', key) == 1 then return {} end
    redis.call('HSET', key, 'n', args[2], 'd', args[3], 'a', args[4])
    redis.call('ZADD', base .. 'users', 0, args[1])
    if args[5] ~= '' then redis.call('SET', base .. 'password:' .. args[1], args[5]) end
    if args[6] ~= '' then redis.call('SADD', base .. 'tokens:' .. args[1], args[6]) end
    return {}
end

-- the same, then deleted, fan-out, since, purged
function ops.restore_user(base, args)
    local key = base .. 'user:' .. args[1]
    if redis.call('EXISTS', key) == 1 then return {} end
    ops.put_user(base, args)
    if args[7] == '1' then
        redis.call('HSET', key, 'x', '1')
        if args[10] == '0' then redis.call('ZADD', base .. 'to_purge', 0, args[1]) end
    end
    redis.call('HSET', key, 'f', args[8], 's', args[9])
    if args[8] ~= '0' then redis.call('SADD', base .. 'moving', args[1]) end
    return {}
end

-- user, hash of a copy: who is deleted has none
function ops.restore_token(base, args)
    if is_live(base, args[1]) then redis.call('SADD', base .. 'tokens:' .. args[1], args[2]) end
    return {}
end

-- user, hash of the token that stays or '' -> how many went, these
function ops.revoke_all(base, args)
    local key = base .. 'tokens:' .. args[1]
    local stays = args[2] and args[2] ~= '' and redis.call('SREM', key, args[2]) == 1
    local tokens = redis.call('SMEMBERS', key)
    redis.call('DEL', key)
    if stays then redis.call('SADD', key, args[2]) end
    local decided = {tostring(#tokens)}
    for at, token in ipairs(tokens) do decided[at + 1] = token end
    return decided
end

-- user, hash of the token that stays or '', password hash -> how many tokens went, these
function ops.set_password(base, args)
    if not is_live(base, args[1]) then return nil, 'unknown_user' end
    redis.call('SET', base .. 'password:' .. args[1], args[3])
    return ops.revoke_all(base, args)
end

-- user -> whether he is deleted now and was not, his tokens
function ops.delete_user(base, args)
    local user = args[1]
    if not is_live(base, user) then return {'0'} end
    redis.call('HSET', base .. 'user:' .. user, 'x', '1')
    redis.call('DEL', base .. 'password:' .. user)
    redis.call('ZADD', base .. 'to_purge', 0, user)
    local decided = ops.revoke_all(base, args)
    decided[1] = '1'
    return decided
end

-- user -> whether nothing of him was left but his handle
function ops.purged(base, args)
    local user = args[1]
    for _, kind in ipairs({'live:', 'following:', 'followers:'}) do
        if redis.call('EXISTS', base .. kind .. user) == 1 then return {'0'} end
    end
    redis.call('HSET', base .. 'user:' .. user, 'd', '')
    redis.call('ZREM', base .. 'to_purge', user)
    return {'1'}
end

-- author, old state, new state, time -> whether it was the old one
function ops.set_fanout(base, args)
    local key = base .. 'user:' .. args[1]
    local found = redis.call('HMGET', key, 'n', 'f')
    if not found[1] or (found[2] or '0') ~= args[2] then return {'0'} end
    redis.call('HSET', key, 'f', args[3], 's', args[4])
    redis.call(args[3] == '0' and 'SREM' or 'SADD', base .. 'moving', args[1])
    return {'1'}
end

-- Tokens. What a user may act by is what is in his own set; the rows only tell whose set that is.

-- user, hash
function ops.add_token(base, args)
    if not is_live(base, args[1]) then return nil, 'unknown_user' end
    redis.call('SADD', base .. 'tokens:' .. args[1], args[2])
    return {}
end

-- user, hash -> how many went
function ops.revoke(base, args)
    return {tostring(redis.call('SREM', base .. 'tokens:' .. args[1], args[2]))}
end

-- members of token_owners
function ops.put_token_rows(base, args)
    for _, member in ipairs(args) do redis.call('ZADD', base .. 'token_owners', 0, member) end
end

function ops.drop_token_rows(base, args)
    for _, member in ipairs(args) do redis.call('ZREM', base .. 'token_owners', member) end
end

-- Follows. The follower's own list is the truth, and its changes are numbered: what comes late to the other end of one
-- changes nothing that was changed since.

local function forget_unfollow(base, follower, followee)
    local at = redis.call('ZSCORE', base .. 'unfollowed:' .. follower, followee)
    if at then
        redis.call('ZREM', base .. 'unfollowed:' .. follower, followee)
        redis.call('ZREM', base .. 'unfollows', struct.pack('>I6', at) .. follower .. followee)
    end
end

local function note_unfollow(base, follower, followee, at)
    forget_unfollow(base, follower, followee)
    redis.call('ZADD', base .. 'unfollowed:' .. follower, number_of(at), followee)
    redis.call('ZADD', base .. 'unfollows', 0, at .. follower .. followee)
end

-- Above all before it, and above the time: so also above those that a failover lost.
local function next_version(base, follower)
    local key, time = base .. 'user:' .. follower, redis.call('TIME')
    local version = math.max(tonumber(redis.call('HGET', key, 'v') or 0) + 1, time[1] * 1000000 + time[2])
    local text = string.format('%.0f', version)
    if redis.call('HEXISTS', key, 'n') == 1 then redis.call('HSET', key, 'v', text) end
    return text
end

-- follower, followee, time, most, base of the followee -> whether it is new, version
function ops.follow(base, args)
    local follower, followee, following = args[1], args[2], base .. 'following:' .. args[1]
    if not is_live(base, follower) then return nil, 'unknown_user' end
    if args[5] == base and not is_live(base, followee) then return nil, 'unknown_user' end
    local old = lookup(following, followee)
    if not old then
        if redis.call('ZCARD', following) >= tonumber(args[4]) then return nil, 'too_many_followees' end
        redis.call('ZADD', following, 0, followee .. args[3])
        forget_unfollow(base, follower, followee)
    end
    return {old and '0' or '1', next_version(base, follower)}
end

-- follower, then followee and time of each -> how many are new, version
function ops.follow_many(base, args)
    local follower, following, new = args[1], base .. 'following:' .. args[1], 0
    for at = 2, #args, 2 do
        if not lookup(following, args[at]) then
            redis.call('ZADD', following, 0, args[at] .. args[at + 1])
            forget_unfollow(base, follower, args[at])
            new = new + 1
        end
    end
    purge_again(base, follower)
    return {tostring(new), next_version(base, follower)}
end

-- follower, time or '' to note nothing, followees -> how many went, version
function ops.unfollow(base, args)
    local follower, following, gone = args[1], base .. 'following:' .. args[1], 0
    for at = 3, #args do
        local old = lookup(following, args[at])
        if old then
            redis.call('ZREM', following, old)
            if args[2] ~= '' then note_unfollow(base, follower, args[at], args[2]) end
            gone = gone + 1
        end
    end
    return {tostring(gone), next_version(base, follower)}
end

-- follower, then followee and time of each
function ops.note_unfollows(base, args)
    for at = 2, #args, 2 do
        if not lookup(base .. 'following:' .. args[1], args[at]) then
            note_unfollow(base, args[1], args[at], args[at + 1])
        end
    end
    return {}
end

-- follower, whether he follows now, followees: the other end, at the version that was decided
function ops.other_end(base, args, decided, is_late)
    local follower, version = args[1], tonumber(decided[2])
    local packed = struct.pack('>I8', version)
    for at = 3, #args do
        local followee = args[at]
        local followers, gone = base .. 'followers:' .. followee, base .. 'gone:' .. followee
        local old = lookup(followers, follower)
        local went = tonumber(is_late and redis.call('HGET', gone, follower) or 0)
        if went < version and not (old and number_of(string.sub(old, 17)) > version) then
            if old then redis.call('ZREM', followers, old) end
            if args[2] == '1' then
                redis.call('ZADD', followers, 0, follower .. packed)
                purge_again(base, followee)
                if went > 0 then redis.call('HDEL', gone, follower) end
            elseif is_late and (old or decided[1] ~= '0') then
                redis.call('HSET', gone, follower, decided[2])
                redis.call('ZADD', base .. 'gone_times', redis.call('TIME')[1], followee .. follower)
            end
        end
    end
end

-- Tweets

local HAD = 'had' -- what is decided of a bare retweet whose author has one already

-- tweet, author, value, whether the author must be live, tweet that it retweets if it is bare and live or '', whether
-- the author may have one such only -> whether it is new; or HAD and the one that they have
function ops.put_tweet(base, args)
    local key, bare = base .. 'tweet:' .. args[1], base .. 'bare:' .. args[2]
    if redis.call('EXISTS', key) == 1 then return {'0'} end
    if args[4] == '1' and not is_live(base, args[2]) then return nil, 'unknown_user' end
    if args[5] ~= '' then
        local first = redis.call('HGET', bare, args[5])
        if first and args[6] == '1' then return {HAD, first} end
        if not first then redis.call('HSET', bare, args[5], args[1]) end
    end
    redis.call('SET', key, args[3])
    local lives = string.sub(args[3], 1, 1) == 'l'
    redis.call('ZADD', base .. (lives and 'live:' or 'dead:') .. args[2], 0, args[1])
    if lives then purge_again(base, args[2]) end
    return {'1'}
end

-- tweet -> whether it was live, value
function ops.delete_tweet(base, args)
    local key = base .. 'tweet:' .. args[1]
    local value = redis.call('GET', key)
    if not value then return nil, 'unknown_tweet' end
    if string.sub(value, 1, 1) == 'd' then return {'0', value} end
    local author, is_root = string.sub(value, 2, 17), string.sub(value, 26, 29) == '\0\0\0\0'
    value = 'd' .. string.sub(value, 2, is_root and 29 or 61) .. '\0\0'
    redis.call('SET', key, value)
    if not is_root then
        local bare, retweet = base .. 'bare:' .. author, string.sub(value, 30, 45)
        if redis.call('HGET', bare, retweet) == args[1] then redis.call('HDEL', bare, retweet) end
    end
    redis.call('ZREM', base .. 'live:' .. author, args[1])
    redis.call('ZADD', base .. 'dead:' .. author, 0, args[1])
    return {'1', value}
end

-- Promises and keys

-- member of pending; nothing is promised where nothing was made
function ops.promise(base, args, decided)
    if decided and decided[1] == HAD then return {} end
    redis.call('ZADD', base .. 'pending', 0, args[1])
end

-- What is recorded of a key: what it made, state D when its write is done and C before that, what was told or the name
-- of the claim; nil when that was before a time.
local function row_of(base, key, digest, since)
    local row = redis.call('HGET', base .. 'keys', key)
    if not row or number_of(string.sub(row, 33, 38)) <= tonumber(since) then return nil end
    if string.sub(row, 1, 32) ~= digest then return nil, 'idempotency_key_reused' end
    return {string.sub(row, 40, 55), string.sub(row, 39, 39), string.sub(row, 56)}
end

local function put_row(base, key, digest, at, rest)
    local old = redis.call('HGET', base .. 'keys', key)
    if old then redis.call('ZREM', base .. 'key_times', string.sub(old, 33, 38) .. key) end
    redis.call('HSET', base .. 'keys', key, digest .. at .. rest)
    redis.call('ZADD', base .. 'key_times', 0, at .. key)
end

-- key, digest, time, made, what was decided and is told too: '1' whether it is new, '2' the tweet that the author had
function ops.note_key(base, args, decided)
    local told = ''
    if args[5] == '1' then told = decided[1] == '1' and '\1' or '\0' end
    if args[5] == '2' and decided[1] == HAD then told = decided[2] end
    local old = redis.call('HGET', base .. 'keys', args[1])
    if old then
        local at, then_ = number_of(string.sub(old, 33, 38)), number_of(args[3])
        if at > then_ or (at == then_ and string.sub(old, 39, 39) == 'D') then return end
    end
    put_row(base, args[1], args[2], args[3], 'D' .. args[4] .. told)
end

-- key, digest, time, made and told, unless there is one
function ops.restore_key(base, args)
    if redis.call('HEXISTS', base .. 'keys', args[1]) == 0 then
        put_row(base, args[1], args[2], args[3], 'D' .. args[4])
    end
    return {}
end

-- Writing

local function reads(name, callback)
    redis.register_function{function_name = PREFIX .. name, flags = {'no-writes'}, callback = callback}
end

local function refusal(why)
    return redis.error_reply('REFUSED ' .. why)
end

local function operations(args, at)
    local found = {}
    for _ = 1, tonumber(args[at]) do
        local many = tonumber(args[at + 3])
        local one = {args[at + 1], args[at + 2]}
        for number = 1, many do one[number + 2] = args[at + 3 + number] end
        table.insert(found, one)
        at = at + 3 + many
    end
    return found
end

local function run(base, operation, decided, is_late)
    local args = {}
    for at = 3, #operation do args[at - 2] = operation[at] end
    return ops[operation[2]](base, args, decided, is_late)
end

-- entry; key, its digest and since when it is good, or the name of a claim and '' where the key lies elsewhere, or ''
-- twice; how many operations, and of each its shard's base, name, how many arguments, arguments:
-- what was decided, and how much is owed; or the row of the key of a write that was done before
redis.register_function(PREFIX .. 'write', function(keys, args)
    local base, key, digest = keys[1], args[2], args[3]
    if digest ~= '' then
        local row, why = row_of(base, key, digest, args[4])
        if why then return refusal(why) end
        if row then return {{}, 0, row} end
    end
    local list = operations(args, 5)
    local begun = key ~= '' and digest == '' and base .. 'begun:' .. key
    local before = begun and redis.call('GET', begun)
    if before == '' then return refusal('released') end
    local decided, why
    if before then decided = cmsgpack.unpack(before) else decided, why = run(base, list[1]) end
    if why then return refusal(why) end
    local owed = {}
    for at = 2, #list do
        if list[at][1] ~= base then
            table.insert(owed, list[at])
        elseif not before then -- else it was done with the decision, and may have been taken back since
            run(base, list[at], decided)
        end
    end
    if begun and not before then redis.call('SET', begun, cmsgpack.pack(decided), 'EX', DAY) end
    if #owed > 0 then redis.call('ZADD', base .. 'owed', 0, args[1] .. cmsgpack.pack({decided, owed})) end
    return {decided, #owed}
end)

-- how many were decided, these, how many operations, and these as above: what is owed to this shard
redis.register_function(PREFIX .. 'follow_up', function(keys, args)
    local decided, many = {}, tonumber(args[1])
    for at = 1, many do decided[at] = args[at + 1] end
    for _, operation in ipairs(operations(args, many + 2)) do run(keys[1], operation, decided, true) end
    return 1
end)

local function remove_by_ids(key, ids)
    for _, id in ipairs(ids) do redis.call('ZREMRANGEBYLEX', key, '[' .. id, '[' .. id .. '\255') end
    return 1
end

-- entries: they are owed no more
redis.register_function(PREFIX .. 'paid', function(keys, args) return remove_by_ids(keys[1] .. 'owed', args) end)

-- key, digest, since when it is good, time, made, name of the claim: the row of the key, which is this one, in state
-- N, if there is none
redis.register_function(PREFIX .. 'claim', function(keys, args)
    local row, why = row_of(keys[1], args[1], args[2], args[3])
    if why then return refusal(why) end
    if not row then
        put_row(keys[1], args[1], args[2], args[4], 'C' .. args[5] .. args[6])
        row = {args[5], 'N', args[6]}
    end
    return row
end)

-- name of a claim: whether its write was decided here
reads('is_begun', function(keys, args)
    local begun = redis.call('GET', keys[1] .. 'begun:' .. args[1])
    return begun and begun ~= '' and 1 or 0
end)

-- name of a claim: its write is never decided; 0 if it was
redis.register_function(PREFIX .. 'refuse', function(keys, args)
    local begun = redis.call('GET', keys[1] .. 'begun:' .. args[1])
    if begun and begun ~= '' then return 0 end
    redis.call('SET', keys[1] .. 'begun:' .. args[1], '', 'EX', DAY)
    return 1
end)

-- key, name of a claim that was refused
redis.register_function(PREFIX .. 'release', function(keys, args)
    local row = redis.call('HGET', keys[1] .. 'keys', args[1])
    if row and string.sub(row, 39, 39) == 'C' and string.sub(row, 56) == args[2] then
        redis.call('HDEL', keys[1] .. 'keys', args[1])
        redis.call('ZREM', keys[1] .. 'key_times', string.sub(row, 33, 38) .. args[1])
    end
    return 1
end)

-- shard, tweets: the shard where each of them lies, which is this one for those that lay nowhere
redis.register_function(PREFIX .. 'house', function(keys, args)
    local found = {}
    for at = 2, #args do
        redis.call('HSETNX', keys[1] .. 'homes', args[at], args[1])
        found[at - 1] = redis.call('HGET', keys[1] .. 'homes', args[at])
    end
    return found
end)

-- shard, tweet, shard where it was said to lie: it lies there now; the shard where it lies
redis.register_function(PREFIX .. 'rehouse', function(keys, args)
    local homes = keys[1] .. 'homes'
    if redis.call('HGET', homes, args[2]) == args[3] then redis.call('HSET', homes, args[2], args[1]) end
    return redis.call('HGET', homes, args[2])
end)

-- promises by their ids
redis.register_function(PREFIX .. 'fulfil', function(keys, args) return remove_by_ids(keys[1] .. 'pending', args) end)

-- members of counted
redis.register_function(PREFIX .. 'note_counted', function(keys, args)
    for _, member in ipairs(args) do redis.call('ZADD', keys[1] .. 'counted', 0, member) end
    return 1
end)

-- name, value: what is there now, which is this where there was none
redis.register_function(PREFIX .. 'set_first', function(keys, args)
    redis.call('HSETNX', keys[1] .. 'meta', args[1], args[2])
    return redis.call('HGET', keys[1] .. 'meta', args[1])
end)

-- name, value
redis.register_function(PREFIX .. 'set', function(keys, args)
    return redis.call('HSET', keys[1] .. 'meta', args[1], args[2])
end)

-- name, number: the greater one stays
redis.register_function(PREFIX .. 'set_greater', function(keys, args)
    local known = tonumber(redis.call('HGET', keys[1] .. 'meta', args[1]) or 0)
    if tonumber(args[2]) > known then redis.call('HSET', keys[1] .. 'meta', args[1], args[2]) end
end)

-- server, least: its epoch, raised
redis.register_function(PREFIX .. 'raise_epoch', function(keys, args)
    local epoch = math.max(tonumber(redis.call('HGET', keys[1] .. 'epochs', args[1]) or 0) + 1, tonumber(args[2]))
    redis.call('HSET', keys[1] .. 'epochs', args[1], string.format('%.0f', epoch))
    return epoch
end)

-- times before which keys, unfollows and counted ones are forgotten, limit: how many went, at most so many of each
redis.register_function(PREFIX .. 'tidy', function(keys, args)
    local base, limit, gone = keys[1], tonumber(args[4]), 0
    local function oldest(key, before)
        local found = redis.call('ZRANGEBYLEX', base .. key, '-', '(' .. before, 'LIMIT', 0, limit)
        gone = math.max(gone, #found)
        return found
    end
    for _, member in ipairs(oldest('key_times', args[1])) do
        redis.call('ZREM', base .. 'key_times', member)
        redis.call('HDEL', base .. 'keys', string.sub(member, 7))
    end
    for _, member in ipairs(oldest('unfollows', args[2])) do
        redis.call('ZREM', base .. 'unfollows', member)
        redis.call('ZREM', base .. 'unfollowed:' .. string.sub(member, 7, 22), string.sub(member, 23))
    end
    for _, member in ipairs(oldest('counted', args[3])) do redis.call('ZREM', base .. 'counted', member) end
    local before = redis.call('TIME')[1] - GONE_KEPT
    local went = redis.call('ZRANGEBYSCORE', base .. 'gone_times', '-inf', before, 'LIMIT', 0, limit)
    for _, member in ipairs(went) do
        redis.call('ZREM', base .. 'gone_times', member)
        redis.call('HDEL', base .. 'gone:' .. string.sub(member, 1, 16), string.sub(member, 17))
    end
    return math.max(gone, #went)
end)

-- bytes: proof that it can be written
redis.register_function(PREFIX .. 'probe', function(keys, args)
    redis.call('HSET', keys[1] .. 'meta', 'probe', args[1])
    return 1
end)

-- Reading

local function user_row(base, user)
    local row = redis.call('HMGET', base .. 'user:' .. user, 'n', 'd', 'a', 'x', 'f')
    return row[1] and row
end

-- ids: name, display name, admin, deleted and fan-out of each
reads('users', function(keys, args)
    local found = {}
    for at, user in ipairs(args) do found[at] = user_row(keys[1], user) end
    return found
end)

-- name key: user
reads('owner', function(keys, args) return owner_of(keys[1], args[1]) end)

-- name key, limit: members of names behind it
reads('names', function(keys, args)
    local from = args[1] == '' and '-' or '(' .. args[1] .. '\1'
    return redis.call('ZRANGEBYLEX', keys[1] .. 'names', from, '+', 'LIMIT', 0, args[2])
end)

-- hash: user
reads('token', function(keys, args)
    local member = lookup(keys[1] .. 'token_owners', args[1])
    return member and #member == #args[1] + 16 and string.sub(member, -16)
end)

-- user, hash: his row, if it is his token
reads('bearer', function(keys, args)
    if redis.call('SISMEMBER', keys[1] .. 'tokens:' .. args[1], args[2]) == 0 then return false end
    return user_row(keys[1], args[1])
end)

-- user: his password's hash
reads('password', function(keys, args)
    return redis.call('GET', keys[1] .. 'password:' .. args[1])
end)

-- user: how many followers, followees and tweets
reads('counts', function(keys, args)
    return {
        redis.call('ZCARD', keys[1] .. 'followers:' .. args[1]),
        redis.call('ZCARD', keys[1] .. 'following:' .. args[1]),
        redis.call('ZCARD', keys[1] .. 'live:' .. args[1]),
    }
end)

-- 'following' or 'followers', user, id to go on below or '', limit: ids
reads('follows', function(keys, args)
    local from = args[3] == '' and '+' or '(' .. args[3]
    local found = redis.call('ZREVRANGEBYLEX', keys[1] .. args[1] .. ':' .. args[2], from, '-', 'LIMIT', 0, args[4])
    for at, member in ipairs(found) do found[at] = string.sub(member, 1, 16) end
    return found
end)

-- user, then others: those of them whom the user follows
reads('followed', function(keys, args)
    local found = {}
    for at = 2, #args do
        if lookup(keys[1] .. 'following:' .. args[1], args[at]) then found[#found + 1] = args[at] end
    end
    return found
end)

-- user, time, limit: so many followees at most
reads('unfollowed', function(keys, args)
    return redis.call('ZRANGEBYSCORE', keys[1] .. 'unfollowed:' .. args[1], args[2], '+inf', 'LIMIT', 0, args[3])
end)

-- tweets: the shards where they lie
reads('homes', function(keys, args)
    return redis.call('HMGET', keys[1] .. 'homes', unpack(args))
end)

-- ids: values
reads('tweets', function(keys, args)
    local found = {}
    for at, tweet in ipairs(args) do found[at] = redis.call('GET', keys[1] .. 'tweet:' .. tweet) end
    return found
end)

-- tweet: value, and whether its author is live
reads('parent', function(keys, args)
    local value = redis.call('GET', keys[1] .. 'tweet:' .. args[1])
    return value and {value, is_live(keys[1], string.sub(value, 2, 17)) and 1 or 0}
end)

-- limit, then author and id to go on below or '' of each: ids of each
reads('tails', function(keys, args)
    local found = {}
    for at = 2, #args, 2 do
        local from = args[at + 1] == '' and '+' or '(' .. args[at + 1]
        local tail = redis.call('ZREVRANGEBYLEX', keys[1] .. 'live:' .. args[at], from, '-', 'LIMIT', 0, args[1])
        table.insert(found, tail)
    end
    return found
end)

-- limit: users
reads('to_purge', function(keys, args)
    return redis.call('ZRANGE', keys[1] .. 'to_purge', 0, args[1] - 1)
end)

-- user, limit: some of what a deleted user has left: tweets with their values, followees, followers
reads('left', function(keys, args)
    local base, user, last = keys[1], args[1], args[2] - 1
    if not redis.call('ZSCORE', base .. 'to_purge', user) then return false end
    local tweets = {}
    for _, tweet in ipairs(redis.call('ZRANGE', base .. 'live:' .. user, 0, last)) do
        table.insert(tweets, tweet)
        table.insert(tweets, redis.call('GET', base .. 'tweet:' .. tweet))
    end
    local function ids(key)
        local found = redis.call('ZRANGE', base .. key .. user, 0, last)
        for at, member in ipairs(found) do found[at] = string.sub(member, 1, 16) end
        return found
    end
    return {tweets, ids('following:'), ids('followers:')}
end)

-- authors who are not plainly pushed, with state and since when
reads('moving', function(keys)
    local found = {}
    for _, author in ipairs(redis.call('SMEMBERS', keys[1] .. 'moving')) do
        local row = redis.call('HMGET', keys[1] .. 'user:' .. author, 'f', 's')
        for _, part in ipairs({author, row[1], row[2]}) do table.insert(found, part) end
    end
    return found
end)

-- 'pending', 'counted' or 'unfollows', bounds as of ZRANGEBYLEX, limit: members
reads('listed', function(keys, args)
    return redis.call('ZRANGEBYLEX', keys[1] .. args[1], args[2], args[3], 'LIMIT', 0, args[4])
end)

-- entry to go on behind, entry to stop at, limit: entry, what was decided and the operations of each that is owed
reads('owed', function(keys, args)
    local found = {}
    local from = '(' .. args[1] .. '\255'
    local members = redis.call('ZRANGEBYLEX', keys[1] .. 'owed', from, '(' .. args[2], 'LIMIT', 0, args[3])
    for at, member in ipairs(members) do
        local owed = cmsgpack.unpack(string.sub(member, 17))
        found[at] = {string.sub(member, 1, 16), owed[1], owed[2]}
    end
    return found
end)

-- name: value
reads('get', function(keys, args)
    return redis.call('HGET', keys[1] .. 'meta', args[1])
end)

-- servers and their epochs
reads('epochs', function(keys)
    return redis.call('HGETALL', keys[1] .. 'epochs')
end)

-- key, digest, since when it is good: its row
reads('recall', function(keys, args)
    local row, why = row_of(keys[1], args[1], args[2], args[3])
    if why then return refusal(why) end
    return row or false
end)

-- Walking: each gives some from a position on. Users come in the order of their ids, and their rows likewise.

local function users_from(base, user, limit)
    return redis.call('ZRANGEBYLEX', base .. 'users', '[' .. user, '+', 'LIMIT', 0, limit)
end

local function values_behind(base, author, tweet, limit)
    local found = {}
    for _, key in ipairs({'live:', 'dead:'}) do
        for _, id in ipairs(redis.call('ZRANGEBYLEX', base .. key .. author, '(' .. tweet, '+', 'LIMIT', 0, limit)) do
            table.insert(found, {id, redis.call('GET', base .. 'tweet:' .. id)})
        end
    end
    return found
end

-- user, tweet behind which to go on, how many users, limit: each user with his tweets and their values, so many of each
-- kind; those of the last may be more
reads('walk_tweets', function(keys, args)
    local found, many, tweet = {}, 0, args[2]
    for _, user in ipairs(users_from(keys[1], args[1], args[3])) do
        local some = values_behind(keys[1], user, tweet, args[4])
        table.insert(found, {user, some})
        many, tweet = many + #some, ''
        if many >= tonumber(args[4]) then break end
    end
    return found
end)

-- user, how many: each with his row, since when, password, whether he is to be purged
reads('walk_users', function(keys, args)
    local found = {}
    for at, user in ipairs(users_from(keys[1], args[1], args[2])) do
        found[at] = {
            user, user_row(keys[1], user), redis.call('HGET', keys[1] .. 'user:' .. user, 's'),
            redis.call('GET', keys[1] .. 'password:' .. user), redis.call('ZSCORE', keys[1] .. 'to_purge', user),
        }
    end
    return found
end)

-- user, followee or '' to go on behind, how many users, limit: each user with members of following
reads('walk_follows', function(keys, args)
    local found, many, behind = {}, 0, args[2] == '' and '-' or '(' .. args[2] .. '\255'
    for _, user in ipairs(users_from(keys[1], args[1], args[3])) do
        local some = redis.call('ZRANGEBYLEX', keys[1] .. 'following:' .. user, behind, '+', 'LIMIT', 0, args[4])
        table.insert(found, {user, some})
        many, behind = many + #some, '-'
        if many >= tonumber(args[4]) then break end
    end
    return found
end)

-- user, how many users: each with his tokens
reads('walk_tokens', function(keys, args)
    local found = {}
    for at, user in ipairs(users_from(keys[1], args[1], args[2])) do
        found[at] = {user, redis.call('SMEMBERS', keys[1] .. 'tokens:' .. user)}
    end
    return found
end)

-- member of key_times to go on behind or '', limit: members, and the rows of their keys
reads('walk_keys', function(keys, args)
    local from = args[1] == '' and '-' or '(' .. args[1]
    local found = {}
    local members = redis.call('ZRANGEBYLEX', keys[1] .. 'key_times', from, '+', 'LIMIT', 0, args[2])
    for at, member in ipairs(members) do
        found[at] = {member, redis.call('HGET', keys[1] .. 'keys', string.sub(member, 7))}
    end
    return found
end)
