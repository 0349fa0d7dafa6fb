-- Write a task down, unless its key was used before or too many of its tenant's are open.
local task, events, once, listing, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, content, now, deadline, ends = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most, longest = tonumber(ARGV[6]), ARGV[7]

if content ~= '' then
    local known = redis.call('GET', once)
    if known then
        return known
    end
end
-- Those whose time is over are open no more, whether or not anybody has said so.
redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
if redis.call('ZCARD', open) >= most then
    return 'full'
end
redis.call('HSET', task, unpack(ARGV, 8))
redis.call('PEXPIREAT', task, ends)
redis.call('XADD', events, '*', 'event', 'state', 'data', '{"status":"pending","runs":0}')
redis.call('PEXPIREAT', events, ends)
redis.call('ZADD', listing, now, id)
redis.call('ZREMRANGEBYSCORE', listing, '-inf', tonumber(now) - tonumber(longest))
redis.call('PEXPIRE', listing, longest)
redis.call('ZADD', open, deadline, id)
redis.call('PEXPIRE', open, longest)
if content ~= '' then
    redis.call('SET', once, id .. ' ' .. content, 'PXAT', ends)
end
return id
