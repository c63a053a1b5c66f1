// A provider of OpenID Connect that is certified, on node: `node oidc_provider.mjs FOLDER PORT EXTERNAL_URL SECONDS`.
// FOLDER is that of the package oidc-provider; EXTERNAL_URL the gateway's, SECONDS how long its access tokens live.
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';

const [folder, port, external, seconds] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(join(folder, 'lib', 'index.js')));
const provider = new Provider(`http://localhost:${port}`, {
  clients: [{
    client_id: 'shop',
    client_secret: 'any secret:/%',
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: [`${external}/oidc/callback`],
    post_logout_redirect_uris: [`${external}/`],
  }],
  pkce: { required: () => true },
  features: { revocation: { enabled: true } },
  rotateRefreshToken: true,
  ttl: { AccessToken: Number(seconds) },
  claims: { openid: ['sub'], email: ['email'] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@shop.example` }) }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
