//! What has to be done to a stream in one go, as scripts that the server runs.

/// Removes what is not needed any more from a stream (its key): what a group (the first argument)
/// has acknowledged (the ids that follow) if it is the only one, and everything below what any group
/// has left to do.
pub(super) const TRIM: &[u8] = b"local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1]) \
    if groups.err then return 0 end \
    local low, low_ms, low_seq \
    for _, group in ipairs(groups) do \
    local info = {} \
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end \
    if #groups == 1 and info.name == ARGV[1] and #ARGV > 1 then \
    redis.call('XDEL', KEYS[1], unpack(ARGV, 2)) end \
    local id = info['last-delivered-id'] \
    local plus = 1 \
    if info.pending > 0 then id = redis.call('XPENDING', KEYS[1], info.name)[2] plus = 0 end \
    local ms, seq = string.match(id, '(%d+)-(%d+)') \
    ms, seq = tonumber(ms), tonumber(seq) + plus \
    if not low or ms < low_ms or (ms == low_ms and seq < low_seq) then \
    low_ms, low_seq = ms, seq low = string.format('%.0f-%.0f', ms, seq) end end \
    if low then return redis.call('XTRIM', KEYS[1], 'MINID', low) end return 0";

/// Puts messages back at the head of a list (its key), the last of them first, even where the
/// server's memory is full: it had room for them. Redis knows such scripts from version 7 on.
pub(super) const PUT_BACK: &[u8] =
    b"#!lua flags=allow-oom\nreturn redis.call('LPUSH', KEYS[1], unpack(ARGV))";

/// Gives all that a consumer of a group has not acknowledged to another, to be claimed at once, and
/// removes the consumer: key, then group, consumer, the other.
pub(super) const RELEASE: &[u8] = b"local group, consumer = ARGV[1], ARGV[2] \
    local pending = redis.pcall('XPENDING', KEYS[1], group, '-', '+', 1000000, consumer) \
    if pending.err then return 0 end \
    for first = 1, #pending, 1000 do \
    local claim = {'XCLAIM', KEYS[1], group, ARGV[3], 0} \
    for i = first, math.min(first + 999, #pending) do claim[#claim + 1] = pending[i][1] end \
    claim[#claim + 1] = 'TIME' claim[#claim + 1] = 0 claim[#claim + 1] = 'JUSTID' \
    redis.call(unpack(claim)) end \
    if #redis.call('XPENDING', KEYS[1], group, '-', '+', 1, consumer) == 0 then \
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer) end return #pending";

/// Removes the consumers of a group that have nothing and were silent for long: key, then group,
/// milliseconds. One that lives after all is made again as soon as it reads.
pub(super) const SWEEP: &[u8] =
    b"local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1]) \
    if consumers.err then return 0 end \
    for _, consumer in ipairs(consumers) do \
    local info = {} \
    for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end \
    if info.pending == 0 and info.idle > tonumber(ARGV[2]) then \
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name) end end return 0";
