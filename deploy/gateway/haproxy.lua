-- Asks Latchkey whose key it is: sets txn.status and, when that is 200, who it is.
local latchkey = "http://127.0.0.1:8000/verify"
local wanted = { "x-user-id", "x-user-name", "x-key-id", "x-key-scopes" }

core.register_action("latchkey", { "http-req" }, function(txn)
    local sent = txn.http:req_get_headers()["authorization"]
    local method = txn.f:method()
    local url = latchkey
    if method ~= "GET" and method ~= "HEAD" then url = url .. "?scope=write" end
    local headers = {}
    if sent then headers["authorization"] = { sent[1] or sent[0] } end
    local answer = core.httpclient():get { url = url, headers = headers, timeout = 3000 }
    txn:set_var("txn.status", answer and answer.status or 503)
    if not answer or not answer.headers then return end
    local challenge = answer.headers["www-authenticate"]
    if challenge then txn:set_var("txn.challenge", challenge[0]) end
    for _, name in ipairs(wanted) do
        local value = answer.headers[name]
        if value then txn:set_var("txn." .. name:gsub("-", "_"), value[0]) end
    end
end)
