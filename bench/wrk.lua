-- GET of a path with the tokens of a file in turn, each after a scheme; at the end one line: requests, errors, p50, p99 (µs).
local tokens, next_token = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    tokens[#tokens + 1] = wrk.format("GET", args[2], { Authorization = args[3] .. " " .. line })
  end
  next_token = math.random(#tokens)
end

function request()
  next_token = next_token % #tokens + 1
  return tokens[next_token]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
