-- Give out those tasks that were accepted and that no worker has had for a while, each to one.
local unclaimed = KEYS[1]
local now, after = tonumber(ARGV[1]), tonumber(ARGV[2])

local found = {}
for _, place in ipairs(redis.call('ZRANGEBYSCORE', unclaimed, '-inf', now - after, 'LIMIT', 0, 100)) do
    if redis.call('EXISTS', 'trivium:task:' .. string.gsub(place, '/', ':')) == 1 then
        redis.call('ZADD', unclaimed, now, place)
        found[#found + 1] = place
    else
        redis.call('ZREM', unclaimed, place)
    end
end
return found
