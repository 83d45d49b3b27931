-- Asks Latchkey whose key it is: sets txn.status and, when that is 200, who it is.
local latchkey = "http://127.0.0.1:8000/verify?scope="
local wanted = { "x-user-id", "x-user-name", "x-key-id", "x-key-scopes", "x-key-expires-at" }

core.register_action("latchkey", { "http-req" }, function(txn)
    local method = txn.f:method() -- that arrived, never a header
    local need = (method == "GET" or method == "HEAD") and "read" or "write"
    local headers = { ["x-forwarded-for"] = { txn.f:src() } } -- with LATCHKEY_TRUSTED_PROXIES=1
    local sent = txn.http:req_get_headers()["authorization"]
    if sent and not sent[1] then headers["authorization"] = { sent[0] } end -- of two, none counts
    -- HAProxy asks up to four times: a Latchkey that hangs is given up after four seconds.
    local answer = core.httpclient():get { url = latchkey .. need, headers = headers, timeout = 1000 }
    txn:set_var("txn.status", answer and answer.status or 503)
    if not answer or not answer.headers then return end
    local challenge = answer.headers["www-authenticate"]
    if challenge then txn:set_var("txn.challenge", challenge[0]) end
    for _, name in ipairs(wanted) do
        local value = answer.headers[name]
        if value then txn:set_var("txn." .. name:gsub("-", "_"), value[0]) end
    end
end)
