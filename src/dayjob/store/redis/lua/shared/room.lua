-- For scripts that empty the server as they go, or keep workers alive: they run although its memory is full.

-- Whether there is memory is asked before a script's first write alone, and not when that can only delete.
call('HDEL', META, 'never')
