-- The counts along chains, as functions: each is atomic and one round trip, however long the chain.
--
-- All keys begin with one base, which holds their hash tag. <base>meta tells which generation is read ("gen"), and
-- which
-- one a recount is building ("next"), if any: changes go to both. A generation has
--   <base><generation>:l  hash  tweet -> state, parent, initial count (see row_of)
--   <base><generation>:c  hash  tweet -> count
--   <base><generation>:t  zset  live tweets by count; those with equal counts lie in the order of their ids; without
--                               hidden ones

local LIVE, GONE = '1', '0'
local HIDDEN = '3' -- live and counted, but not in the list
local UNSURE = '2' -- taken for gone in what a recount builds, until it has asked the store
local NOBODY = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' -- no library is at hand while this is loaded
local ABANDONED = 300 -- seconds
local LONGEST = 100000 -- steps of a walk: far more than a chain may have, so that a broken one ends

local function row_of(state, parent, initial)
    return state .. (parent == '' and NOBODY or parent) .. initial
end

local function parent_of(row)
    local parent = string.sub(row, 2, 17)
    if parent ~= NOBODY then return parent end
end

local function state_of(row)
    return string.sub(row, 1, 1)
end

local function is_live(row)
    return state_of(row) == LIVE
end

local function is_counted(state)
    return state == LIVE or state == HIDDEN
end

local function prefixes(base, read, next)
    local all = {base .. (read or '0') .. ':'}
    if next then all[2] = base .. next .. ':' end
    return all
end

local function generations(base)
    local found = redis.call('HMGET', base .. 'meta', 'gen', 'next')
    return prefixes(base, found[1], found[2])
end

local function drop(base, generation)
    if generation then
        local g = base .. generation .. ':'
        redis.call('UNLINK', g .. 'l', g .. 'c', g .. 't')
    end
end

-- Where changes go to. What a recount that died was building goes with the first change minutes later: nobody can wait
-- for it so long, and each change would be made twice for ever.
local function changed_generations(base)
    local meta = base .. 'meta'
    local found = redis.call('HMGET', meta, 'gen', 'next', 'touched')
    if found[2] and tonumber(redis.call('TIME')[1]) - tonumber(found[3]) > ABANDONED then
        drop(base, found[2])
        redis.call('HDEL', meta, 'next', 'touched')
        return prefixes(base, found[1])
    end
    return prefixes(base, found[1], found[2])
end

local function change_above(g, tweet, by)
    for _ = 1, LONGEST do
        local row = redis.call('HGET', g .. 'l', tweet)
        if not row then return end
        local count = redis.call('HINCRBY', g .. 'c', tweet, by)
        if is_live(row) then redis.call('ZADD', g .. 't', count, tweet) end
        tweet = parent_of(row)
        if not tweet then return end
    end
end

local function insert(g, tweet, parent, initial, state)
    redis.call('HSET', g .. 'l', tweet, row_of(state, parent, initial))
    redis.call('HSET', g .. 'c', tweet, initial)
    if state == LIVE then redis.call('ZADD', g .. 't', initial, tweet) end
end

local function set_state(g, tweet, row, state)
    redis.call('HSET', g .. 'l', tweet, state .. string.sub(row, 2))
end

local function add(g, tweet, parent, initial, state)
    if redis.call('HEXISTS', g .. 'l', tweet) == 1 then return end
    insert(g, tweet, parent, initial, state)
    if is_counted(state) and parent ~= '' then change_above(g, parent, 1) end
end

local function remove(g, tweet, parent, initial)
    local row = redis.call('HGET', g .. 'l', tweet)
    if not row then
        insert(g, tweet, parent, initial, GONE)
    elseif state_of(row) ~= GONE then
        set_state(g, tweet, row, GONE)
        if is_counted(state_of(row)) then
            redis.call('ZREM', g .. 't', tweet)
            if parent ~= '' then change_above(g, parent, -1) end
        end
    end
end

-- As the store has it. What it has deleted stays so; what it had a moment ago is believed only where nobody knew
-- better.
local function add_as_read(g, tweet, parent, initial, state)
    if state == GONE then return remove(g, tweet, parent, initial) end
    local row = redis.call('HGET', g .. 'l', tweet)
    if not row or state_of(row) ~= UNSURE then return add(g, tweet, parent, initial, state) end
    set_state(g, tweet, row, state)
    if state == LIVE then redis.call('ZADD', g .. 't', redis.call('HGET', g .. 'c', tweet), tweet) end
    if parent ~= '' then change_above(g, parent, 1) end
end

local function change(keys, args, apply)
    local all = changed_generations(keys[1])
    if args[2] ~= '' then
        for _, g in ipairs(all) do
            if redis.call('HEXISTS', g .. 'l', args[2]) == 0 then return 0 end
        end
    end
    apply(all[1], args[1], args[2], args[3], args[4])
    if all[2] then
        -- An addition may come after the removal, which only the generation that is read knows of, rightly or not.
        local is_gone = not is_counted(state_of(redis.call('HGET', all[1] .. 'l', args[1])))
        apply(all[2], args[1], args[2], args[3], is_gone and args[4] == LIVE and UNSURE or args[4])
    end
    return 1
end

-- tweet, parent or '', initial count, state: 1 if done, 0 if a tweet of its chain is missing
redis.register_function(PREFIX .. 'add', function(keys, args) return change(keys, args, add) end)
redis.register_function(PREFIX .. 'remove', function(keys, args) return change(keys, args, remove) end)

-- tweets: those that are live are left out of the list from now on
redis.register_function(PREFIX .. 'hide', function(keys, args)
    for _, g in ipairs(changed_generations(keys[1])) do
        for _, tweet in ipairs(args) do
            local row = redis.call('HGET', g .. 'l', tweet)
            if row and is_live(row) then
                set_state(g, tweet, row, HIDDEN)
                redis.call('ZREM', g .. 't', tweet)
            end
        end
    end
end)

redis.register_function{
    function_name = PREFIX .. 'probe', flags = {'no-writes'}, callback = function() return 1 end
}

-- Whether this server is, since its start, in the run that has all that it was to be told. '' asks for no certain run.
local function is_of(run)
    if run == '' then return true end
    local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
    local own = string.match(info, 'run_id:(%w+)') .. ' ' .. string.match(info, 'master_replid:(%w+)')
    return string.find(run, own, 1, true) ~= nil
end

-- A function that reads the generation that is read: its first argument is the run that it must be in.
local function reads(name, callback)
    redis.register_function{
        function_name = PREFIX .. name, flags = {'no-writes'}, callback = function(keys, args)
            if not is_of(args[1]) then return redis.error_reply('REFUSED behind') end
            return callback(generations(keys[1])[1], args)
        end
    }
end

-- run, tweets: their counts
reads('counts', function(g, args) return redis.call('HMGET', g .. 'c', unpack(args, 2)) end)

-- run, limit: tweets and counts, those that lead first
reads('top', function(g, args) return redis.call('ZREVRANGE', g .. 't', 0, args[2] - 1, 'WITHSCORES') end)

local function is_above(one, other) -- by their bytes, whatever the locale
    for at = 1, 16 do
        local a, b = string.byte(one, at), string.byte(other, at)
        if a ~= b then return a > b end
    end
    return false
end

-- run, limit, count and tweet to go on behind, which may have changed its count or be gone: the same
reads('top_behind', function(g, args)
    local top, limit, count, tweet = g .. 't', args[2], args[3], args[4]
    local first = redis.call('ZCOUNT', top, '(' .. count, '+inf')
    local low, high = first, first + redis.call('ZCOUNT', top, count, count)
    while low < high do -- of those with this count the first that is not above the tweet
        local middle = math.floor((low + high) / 2)
        local there = redis.call('ZREVRANGE', top, middle, middle)[1]
        if there == tweet or is_above(there, tweet) then low = middle + 1 else high = middle end
    end
    return redis.call('ZREVRANGE', top, low, low + limit - 1, 'WITHSCORES')
end)

-- Recounting: begin (patience in seconds) -> generation, or 0 while another is at it; replay; compare; swap. The time
-- is
-- the server's own: those who recount may have other clocks.

redis.register_function(PREFIX .. 'begin', function(keys, args)
    local base, meta = keys[1], keys[1] .. 'meta'
    local found = redis.call('HMGET', meta, 'next', 'touched')
    local now = redis.call('TIME')[1]
    if found[1] and tonumber(now) - tonumber(found[2]) < tonumber(args[1]) then return 0 end
    drop(base, found[1])
    -- Above the time, so that none comes again when all of this is lost and begins anew.
    local generation = math.max(tonumber(redis.call('HGET', meta, 'last') or 0) + 1, tonumber(now))
    redis.call('HSET', meta, 'last', generation, 'next', generation, 'touched', now)
    return generation
end)

-- generation, then tweet, parent, initial count, state of each: the positions of those whose parent is missing
redis.register_function(PREFIX .. 'replay', function(keys, args)
    local base, meta = keys[1], keys[1] .. 'meta'
    if redis.call('HGET', meta, 'next') ~= args[1] then return redis.error_reply('REFUSED stale') end
    redis.call('HSET', meta, 'touched', redis.call('TIME')[1])
    local read, g, missing = generations(base)[1], base .. args[1] .. ':', {}
    for at = 2, #args, 4 do
        local parent, state = args[at + 1], args[at + 3]
        local known = redis.call('HGET', read .. 'l', args[at])
        if state == LIVE and known and state_of(known) == HIDDEN then state = HIDDEN end
        if parent ~= '' and redis.call('HEXISTS', g .. 'l', parent) == 0 then
            table.insert(missing, (at - 2) / 4)
        else
            add_as_read(g, args[at], parent, args[at + 2], state)
        end
    end
    return missing
end)

-- generation, tweets: those that differ between it and the one that is read
redis.register_function{
    function_name = PREFIX .. 'compare', flags = {'no-writes'}, callback = function(keys, args)
        local old, new = generations(keys[1])[1], keys[1] .. args[1] .. ':'
        local differ = {}
        for at = 2, #args do
            local tweet = args[at]
            if redis.call('HGET', old .. 'l', tweet) ~= redis.call('HGET', new .. 'l', tweet)
                or redis.call('HGET', old .. 'c', tweet) ~= redis.call('HGET', new .. 'c', tweet) then
                table.insert(differ, tweet)
            end
        end
        return differ
    end
}

-- generation: it is built no more
redis.register_function(PREFIX .. 'abandon', function(keys, args)
    local base, meta = keys[1], keys[1] .. 'meta'
    if redis.call('HGET', meta, 'next') ~= args[1] then return 0 end
    drop(base, args[1])
    redis.call('HDEL', meta, 'next', 'touched')
    return 1
end)

-- generation: it is the one that is read from now on
redis.register_function(PREFIX .. 'swap', function(keys, args)
    local base, meta = keys[1], keys[1] .. 'meta'
    local found = redis.call('HMGET', meta, 'gen', 'next')
    if found[2] ~= args[1] then return redis.error_reply('REFUSED stale') end
    redis.call('HSET', meta, 'gen', args[1])
    redis.call('HDEL', meta, 'next', 'touched')
    drop(base, found[1] or '0')
    return 1
end)
