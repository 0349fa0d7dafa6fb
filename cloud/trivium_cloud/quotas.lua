-- Take one request from all buckets at once, or from none if one of them is too full.
-- KEYS: buckets. ARGV: for each its kind, limit and cost.
-- Returns the index of the fullest that refused (or 0), the seconds to wait, and for each bucket
-- what is left and the seconds until it is as new.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local midnight = (math.floor(now / 86400) + 1) * 86400
local refused, wait = 0, 0
local writes, told = {}, {}
for i, name in ipairs(KEYS) do
    local kind = ARGV[3 * i - 2]
    local limit, cost = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local left, reset, longer
    if kind == 'minute' then
        -- GCRA: the bucket leaks evenly; what is kept is when it will be empty.
        local step = 60 / limit
        local before = math.max(tonumber(redis.call('GET', name) or '0'), now)
        local after = before + cost * step
        longer = after - 60 - now
        if longer > 0.000001 then after = before end
        left, reset = math.floor((60 - (after - now)) / step + 0.000001), after - now
        writes[i] = { 'SET', name, string.format('%.6f', after), 'PX', math.ceil(reset * 1000) + 1 }
    else
        local used = tonumber(redis.call('GET', name) or '0')
        longer = used + cost > limit and midnight - now or 0
        left, reset = limit - used, midnight - now
        if longer == 0 then left = left - cost end
        writes[i] = { 'INCRBY', name, cost }
    end
    if longer > 0.000001 and (refused == 0 or longer > wait) then
        refused, wait = i, longer
    end
    told[#told + 1] = string.format('%d', math.max(left, 0))
    told[#told + 1] = string.format('%.3f', reset)
end
if refused == 0 then
    for i, write in ipairs(writes) do
        redis.call(unpack(write))
        if write[1] == 'INCRBY' then redis.call('EXPIREAT', KEYS[i], midnight) end
    end
end
return { refused, string.format('%.3f', wait), unpack(told) }
