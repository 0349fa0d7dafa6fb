-- Give a task to a worker, unless it has ended or another one has it that may be alive.
local task, events, unclaimed, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, seen, now, place, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

redis.call('ZREM', unclaimed, place)
local given = redis.call('HMGET', task, 'status', 'owner', 'beat', 'runs')
local status, owner, beat, runs = given[1], given[2] or '', given[3] or '0', tonumber(given[4] or 0)
if not status then
    return {'gone', '', 0}
end
if status ~= 'pending' and status ~= 'running' then
    return {status, '', runs}
end
if owner == token then
    return {'', '', runs}
end
local last = owner .. ' ' .. beat
if owner ~= '' and last ~= seen then
    return {'held', last, runs}
end
runs = runs + 1
redis.call('HSET', task, 'status', 'running', 'owner', token, 'beat', 0, 'runs', runs)
redis.call('HSETNX', task, 'started', now)
redis.call('HINCRBY', counts, 'running', 1)
local data = '{"status":"running","runs":' .. runs .. '}'
redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'event', 'state', 'data', data)
redis.call('PUBLISH', 'trivium:told:' .. place, '')
return {'', '', runs}
