import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { adminToken } from './relay.mjs';
import { file, linkKey, World } from './world.mjs';

const leaverToken = 'token-of-one-who-leaves';
const leaver = `access "leaver" {
    token = "${leaverToken}"
    may   = ["read", "redeliver"]
  }`;

let world;
let html = ''; // of the other site
const site = createServer((req, res) => res.writeHead(200, { 'Content-Type': 'text/html' }).end(html));
const others = () => [
  `http://127.0.0.1:${site.address().port}`, // another origin of the same site: the browser sends the cookie along
  `http://localhost:${site.address().port}`, // another site
];
before(async () => {
  await new Promise((resolve) => site.listen(0, resolve));
  world = await World.begin(leaver);
});
after(() => { site.close(); return world.end(); });

const form = (path, fields = {}) => `<form method="post" action="${world.relay.url}${path}">
  ${Object.entries(fields).map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`).join('')}<button>Win a prize</button></form>`;

story('a form of another site does nothing', async (arrive) => {
  const { relay } = world;
  const { id } = await world.one('endpoint=acme&state=delivered');
  const audit = async () => (await relay.api('GET', '/v1/audit?limit=1')).total;
  const generation = async () => (await relay.api('GET', '/v1/config')).generation;
  for (const other of others()) {
    const v = await arrive(relay);
    await v.login();
    const before = [await audit(), await generation()];
    for (const [path, fields] of [
      [`/deliveries/${id}/redeliver`], ['/endpoints/billing/pause'], ['/endpoints/shop-of-acme/delete'], ['/endpoints/billing/test'], ['/reload'],
      ['/deliveries/bulk', { action: 'discard', until: '0s' }], ['/links', { tenant: 'acme', may: 'read' }], ['/logout'], ['/login', { token: leaverToken }],
    ]) {
      v.expect(403, path);
      html = form(path, fields);
      await v.page.goto(other);
      const answer = v.page.waitForResponse((r) => r.url().startsWith(relay.url + path));
      await v.page.getByRole('button').click();
      assert.equal((await answer).status(), 403, `${path} from ${other}`);
    }
    assert.deepEqual([await audit(), await generation()], before);
    await v.open('/', 'overview'); // still who it was
    await v.page.locator('.who').getByText('administrator').waitFor();
    await v.leave();
  }
});

story('nobody is logged in by another site', async (arrive) => {
  for (const other of others()) {
    const v = await arrive(world.relay);
    v.expect(403, '/login');
    html = form('/login', { token: leaverToken });
    await v.page.goto(other);
    const answer = v.page.waitForResponse((r) => r.url() === `${world.relay.url}/login`);
    await v.page.getByRole('button').click();
    assert.equal((await answer).status(), 403);
    assert.deepEqual(await v.context.cookies(), []);
    await v.open('/', 'login');
  }
});

story('a link of another site does not change who somebody is, unless he says so', async (arrive) => {
  const token = await world.link('acme');
  for (const other of others()) {
    const v = await arrive(world.relay);
    await v.login();
    html = `<a href="${world.relay.url}/enter/${token}">see this</a>`;
    await v.page.goto(other);
    await v.page.getByRole('link').click();
    await v.at('enter');
    await v.open('/', 'overview');
    await v.page.locator('.who').getByText('administrator').waitFor();
    await v.page.goto(other);
    await v.page.getByRole('link').click();
    await v.at('enter');
    await v.page.getByRole('button', { name: 'Go on as' }).click();
    await v.at('overview');
    await v.page.locator('.who').getByText('acme').waitFor();
  }
});

story('a link to the page in a chat opens what it says', async (arrive) => {
  const { id } = await world.one('endpoint=crm');
  for (const other of others()) {
    const v = await arrive(world.relay);
    await v.login();
    html = `<a href="${world.relay.url}/deliveries/${id}">look</a>`;
    await v.page.goto(other);
    await v.page.getByRole('link').click();
    await v.at('delivery');
  }
});

story('the page is shown in no frame', async (arrive) => {
  for (const other of others()) {
    const v = await arrive(world.relay);
    v.tolerate(/frame/i);
    v.expect(403, '/deliveries');
    await v.login();
    html = `<iframe src="${world.relay.url}/deliveries"></iframe>`;
    await v.page.goto(other, { waitUntil: 'load' });
    const frame = v.page.frames()[1];
    assert.equal(await frame.locator('main').count(), 0);
  }
});

story('a login leads nowhere else, and its cookie is for this site alone', async (arrive) => {
  for (const next of ['https://evil.example/', '//evil.example/', '/\\evil.example', '\\\\evil.example', 'javascript:alert(1)', '/\t/evil.example', 'evil.example']) {
    const v = await arrive(world.relay);
    await v.open(`/login?next=${encodeURIComponent(next)}`, 'login');
    await v.page.getByLabel('Token').fill(adminToken);
    await v.page.getByRole('button', { name: 'Log in' }).click();
    await v.at('overview');
    assert.equal(new URL(v.page.url()).origin, world.relay.url);
    const cookies = await v.context.cookies();
    assert.ok(cookies.every((c) => c.httpOnly && !c.value.includes(adminToken)), JSON.stringify(cookies));
    assert.deepEqual([...new Set(cookies.filter((c) => c.path === '/').map((c) => c.sameSite))], ['Strict']);
    await v.leave();
  }
  const v = await arrive(world.relay);
  v.expect(403, '/login');
  await v.open('/login', 'login');
  await v.page.getByLabel('Token').fill('no such token');
  await v.page.getByRole('button', { name: 'Log in' }).click();
  await v.page.getByRole('alert').waitFor();
  assert.deepEqual(await v.context.cookies(), []);
  assert.equal(await v.page.getByLabel('Token').inputValue(), '');
});

// sign makes a link as Relay does, with any content.
function sign(claims, key = linkKey) {
  const text = JSON.stringify(claims);
  const sum = createHmac('sha256', key).update(`relay link ${text}`).digest('base64url');
  return `relay_link_${Buffer.from(text).toString('base64url')}.${sum}`;
}

story('links that are late, forged, of another key or cut short open nothing', async (arrive) => {
  const seconds = Math.floor(Date.now() / 1000);
  const whole = sign({ t: 'acme', m: ['read'], e: seconds + 600 });
  const v = await arrive(world.relay);
  await v.enter(whole); // so that the others are refused for what is wrong with them
  await v.leave();
  const [head, sum] = whole.split('.');
  for (const [what, token] of Object.entries({
    late: sign({ t: 'acme', m: ['read'], e: seconds - 1 }),
    'of another key': sign({ t: 'acme', m: ['read'], e: seconds + 600 }, 'another key of the same length 01'),
    'for all tenants': sign({ t: '', m: ['read'], e: seconds + 600 }),
    forged: `relay_link_${Buffer.from(JSON.stringify({ t: 'globex', m: ['read'], e: seconds + 600 })).toString('base64url')}.${sum}`,
    'without a signature': head,
    'cut short': whole.slice(0, -1),
    'of nothing': 'x',
    'very long': `relay_link_${'x'.repeat(6000)}`,
  })) {
    const v = await arrive(world.relay);
    v.expect(403, '/enter/');
    await v.open(`/enter/${token}`, 'ended');
    await v.page.getByRole('heading', { name: ['late', 'of another key', 'forged'].includes(what) ? 'Your access has ended' : 'This link is not whole' }).waitFor();
    assert.equal(await v.page.getByLabel('Token').count(), 0, what);
    assert.deepEqual(await v.context.cookies(), [], what);
    await v.leave();
  }
});

story('a link that is taken back ends what it began, and no other', async (arrive) => {
  const { relay } = world;
  const operator = await arrive(relay);
  await operator.login();
  await operator.open('/links', 'links');
  const form = operator.page.locator('form[action="/links"]');
  await form.getByLabel('Tenant').fill('acme');
  await form.getByLabel('For whom').fill('Ann, who leaves');
  await form.getByRole('button', { name: 'Make the link' }).click();
  const [, token] = (await operator.page.locator('#link').innerText()).split('/enter/');
  const leaves = await arrive(relay);
  await leaves.enter(token);
  await leaves.open('/deliveries', 'deliveries');
  leaves.expect(401, '/');
  const stays = await arrive(relay);
  await stays.enter(await world.link('acme'));
  await stays.open('/deliveries', 'deliveries');

  await operator.page.getByRole('button', { name: 'Take back', exact: true }).click();
  await operator.page.getByText('The link was taken back.').waitFor();
  await leaves.page.locator('main[data-screen=ended]').waitFor(); // by itself: what is live ended
  await leaves.page.getByText('Your link was taken back.').waitFor();
  await leaves.open('/deliveries', 'ended');
  await stays.open('/deliveries', 'deliveries');

  await operator.open('/links', 'links');
  const back = operator.page.locator('section', { has: operator.page.getByRole('heading', { name: 'Take links back' }) });
  await back.getByLabel('Tenant').fill('acme');
  await back.getByRole('button', { name: 'Take them back' }).click();
  stays.expect(401, '/');
  await stays.page.locator('main[data-screen=ended]').waitFor();
});

story('a session ends when its token leaves the file, and a link when its key does', async (arrive) => {
  const { relay, receiver } = world;
  const gone = await arrive(relay);
  await gone.login(leaverToken);
  await gone.open('/deliveries', 'deliveries');
  gone.expect(401, '/');
  const tenant = await arrive(relay);
  await tenant.enter(await world.link('acme'));
  await tenant.open('/deliveries', 'deliveries');
  tenant.expect(401, '/');
  const stays = await arrive(relay);
  await stays.login();
  const form = await stays.context.newPage();
  await form.goto('/deliveries');

  await relay.reload(file(receiver).replace(linkKey, 'another-key-of-links-0123456789ab'));
  // By themselves: what is live ended. Before that, their own navigation would end that of the test.
  await gone.page.locator('main[data-screen=login]').waitFor();
  await tenant.page.locator('main[data-screen=ended]').waitFor();
  for (const [v, screen] of [[gone, 'login'], [tenant, 'ended']]) {
    await v.open('/deliveries', screen);
    assert.equal((await v.context.request.post('/endpoints/billing/pause', { failOnStatusCode: false, maxRedirects: 0 })).status(), 401);
  }
  await stays.open('/deliveries', 'deliveries');
});

story('logging out ends the session, also for a page that is still open', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  const { id } = await world.one('endpoint=acme&state=delivered');
  // What is live would show the login by itself, and so would the screen when it is read again.
  const byItself = (request) => new URL(request.url()).pathname === '/live' || request.headers()['relay-part'];
  await page.route('**', (route) => (byItself(route.request()) ? route.abort('aborted') : route.continue()));
  await v.open(`/deliveries/${id}`, 'delivery');
  v.expect(401, '/');
  const other = await v.context.newPage();
  await other.goto('/');
  await other.getByRole('button', { name: 'Log out' }).click();
  await other.locator('main[data-screen=login]').waitFor();
  await page.getByRole('button', { name: 'Send again' }).click();
  await v.page.waitForURL(/redeliver|login/);
  assert.equal((await world.relay.api('GET', `/v1/deliveries/${id}`)).redelivered_as ?? null, null);
});
