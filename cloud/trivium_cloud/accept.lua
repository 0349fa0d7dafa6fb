-- Write a task down, unless its key was used before or too much of its tenant's is open; without
-- fields only look whether it might be.
local task, events, once, listing, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, inputs, unclaimed, counts = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local id, place, content, now, deadline = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ends, most, longest, size, room = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]
local large = tonumber(ARGV[11])

if content ~= '' then
    local known = redis.call('GET', once)
    if known then
        return known
    end
end
-- Those whose time is over are open no more, whether or not anybody has said so.
for _, each in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now)) do
    local size = redis.call('HGET', held, each)
    if size then
        redis.call('HINCRBY', held, 'all', -tonumber(size))
        redis.call('HDEL', held, each)
    end
end
redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
if redis.call('ZCARD', open) >= most then
    return 'full'
end
if tonumber(redis.call('HGET', held, 'all') or 0) + tonumber(size) > tonumber(room) then
    return 'large'
end
if #ARGV == 11 then
    return ''
end
if redis.call('HLEN', inputs) ~= large then
    return 'late'
end
redis.call('HSET', task, unpack(ARGV, 12))
redis.call('PEXPIREAT', task, ends)
redis.call('PEXPIREAT', inputs, tonumber(deadline) + 60000)
redis.call('XADD', events, '*', 'event', 'state', 'data', '{"status":"pending","runs":0}')
redis.call('PEXPIREAT', events, ends)
redis.call('ZADD', listing, now, id)
redis.call('ZREMRANGEBYSCORE', listing, '-inf', tonumber(now) - tonumber(longest))
redis.call('PEXPIRE', listing, longest)
redis.call('ZADD', open, deadline, id)
redis.call('PEXPIRE', open, longest)
redis.call('HSET', held, id, size)
redis.call('HINCRBY', held, 'all', size)
redis.call('PEXPIRE', held, longest)
redis.call('ZADD', unclaimed, now, place)
redis.call('PEXPIRE', unclaimed, longest)
redis.call('HINCRBY', counts, 'pending', 1)
redis.call('PEXPIRE', counts, longest)
if content ~= '' then
    redis.call('SET', once, id .. ' ' .. content, 'PXAT', ends)
end
return id
