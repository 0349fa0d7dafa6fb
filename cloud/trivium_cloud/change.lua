-- Write what has happened to a task that has not ended, if whoever says so has it.
local task, steps, found, events, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, inputs, unclaimed, counts = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local token, place, now, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local event, data, name, step, kept = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local given = redis.call('HMGET', task, 'status', 'owner', 'keep')
if not given[1] then
    return 'gone'
end
if given[1] ~= 'pending' and given[1] ~= 'running' then
    return given[1]
end
if token ~= '' and given[2] ~= token then
    return 'lost'
end
if #ARGV > 9 then
    redis.call('HSET', task, unpack(ARGV, 10))
end
if name ~= '' then
    local ends = redis.call('PEXPIRETIME', task)
    redis.call('HSET', steps, name, step)
    redis.call('PEXPIREAT', steps, ends)
    if kept ~= '' then
        redis.call('HSET', found, name, kept)
        redis.call('PEXPIREAT', found, ends)
    end
end
if event ~= '' then
    redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'event', event, 'data', data)
end
local status = redis.call('HGET', task, 'status')
if given[1] == 'running' and status == 'pending' then
    -- Given back by a worker that stops: it did not fail because of the task.
    redis.call('HINCRBY', task, 'runs', -1)
elseif status ~= 'running' then
    -- What was needed to do it is needed no more.
    redis.call('HDEL', task, 'ask', 'owner', 'beat')
    redis.call('UNLINK', found, inputs)
    for _, each in ipairs({task, steps, events}) do
        redis.call('PEXPIRE', each, given[3])
    end
    local id = string.match(place, '/(.*)')
    redis.call('ZREM', open, id)
    redis.call('ZREM', unclaimed, place)
    redis.call('HINCRBY', counts, status, 1)
    local size = redis.call('HGET', held, id)
    if size then
        redis.call('HDEL', held, id)
        redis.call('HINCRBY', held, 'all', -tonumber(size))
    end
end
redis.call('PUBLISH', 'trivium:told:' .. place, '')
return ''
