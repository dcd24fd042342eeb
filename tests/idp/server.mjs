// The certified npm `oidc-provider` as the identity provider of tests: device grant, code + PKCE, back-channel logout.
//
// One line of JSON on stdin configures it: {"port", "web_callback", "logout"}; "up" on stdout says that it listens. It lives as
// long as its stdin. Its own development pages ask for a login (any password) and for consent; Chromium fills them in.
import { createInterface } from 'node:readline';
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';

const lines = createInterface({ input: process.stdin });
const settings = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
process.stdin.on('end', () => process.exit(0));
const issuer = `http://localhost:${settings.port}`;

const key = (kid, alg) => {
  const kind = alg === 'RS256' ? ['rsa', { modulusLength: 2048 }] : ['ec', { namedCurve: 'P-256' }];
  return { ...generateKeyPairSync(...kind).privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg };
};

const people = {
  alice: { preferred_username: 'alice', email: 'alice@contoso.example', groups: ['dba', 'owners'] },
  bob: { preferred_username: 'bob', email: 'bob@contoso.example', groups: ['sre'] },
  mallory: { preferred_username: 'alice', email: 'alice@elsewhere.example', groups: [] },
};

const logout = { backchannel_logout_uri: settings.logout, backchannel_logout_session_required: true };
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'interlock-cli', token_endpoint_auth_method: 'none', application_type: 'native',
      grant_types: ['authorization_code', DEVICE], response_types: ['code'], redirect_uris: ['http://127.0.0.1/callback'],
      ...logout,
    },
    {
      client_id: 'interlock-web', client_secret: 'a secret of the tests', grant_types: ['authorization_code'],
      response_types: ['code'], redirect_uris: [settings.web_callback], ...logout,
    },
  ],
  jwks: { keys: [key('r1', 'RS256'), key('e1', 'ES256')] },
  cookies: { keys: ['tests'] },
  scopes: ['openid', 'profile', 'email', 'groups'],
  claims: { openid: ['sub'], profile: ['preferred_username'], email: ['email'], groups: ['groups'], sid: null, auth_time: null },
  conformIdTokenClaims: false, // the ID token says who it is: nothing more is asked for
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  ttl: { DeviceCode: 600, IdToken: 600, AccessToken: 600, Session: 3600, Grant: 3600, Interaction: 600 },
  pkce: { required: () => true, methods: ['S256'] },
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true, charset: 'base-20', mask: '****-****' },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
});
provider.on('server_error', (_, error) => console.error(error.stack));
provider.on('backchannel.error', (_, error) => console.error(error.stack));
provider.listen(settings.port, '127.0.0.1', () => console.log('up'));
