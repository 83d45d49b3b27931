// A certified identity provider (npm oidc-provider), set up by its environment.

import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const { PORT, LATCHKEYS } = process.env;
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "RS256" };
const latchkeys = LATCHKEYS.split(" "); // their URLs; the first one is told of log-outs

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  jwks: { keys: [{ ...key, kid: `${Date.now()}` }] },
  clients: [
    {
      client_id: "latchkey",
      client_secret: "s".repeat(40),
      redirect_uris: latchkeys.map((url) => `${url}/login/oidc/callback`),
      post_logout_redirect_uris: latchkeys.map((url) => `${url}/`),
      response_types: ["code"],
      grant_types: ["authorization_code"],
      backchannel_logout_uri: `${latchkeys[0]}/login/oidc/logout`,
      backchannel_logout_session_required: true,
      require_auth_time: true,
    },
  ],
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  claims: { openid: ["sub"], profile: ["preferred_username"] },
  pkce: { required: () => true },
  async findAccount(_, sub) {
    return { accountId: sub, claims: () => ({ sub, preferred_username: sub }) };
  },
  cookies: { keys: ["a key"] },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
});
provider.on("server_error", (_, error) => console.error(error));
provider.listen(PORT, "127.0.0.1", () => console.log("ready"));
