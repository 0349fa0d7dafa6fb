-- Take a worker's sign of life, and tell it if the task is no longer its own.
local given = redis.call('HMGET', KEYS[1], 'status', 'owner')
if not given[1] then
    return 'gone'
end
if given[1] ~= 'running' then
    return given[1]
end
if given[2] ~= ARGV[1] then
    return 'lost'
end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
return ''
