// What strangers control is shown as text: names, data and answers of others never become part of the page.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

const evil = '"\'><x-evil onclick=alert(1)></x-evil></script><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}${7*7}';
const short = '"><x-evil>\'&amp;{{.}}';
const reversed = '\u202egpj.exe'; // written from right to left
const bodies = {
  '/html': { headers: ['Content-Type', 'text/html', 'X-Evil', evil], body: `<!doctype html>${evil}` },
  '/binary': { status: 500, headers: ['Content-Type', 'application/octet-stream'], body: Buffer.from([0xff, 0xfe, 0, 1, 0x80, 0x3c, 0x78, 0x2d, 0x65, 0x76, 0x69, 0x6c, 0x3e]) },
  '/half': { status: 500, headers: ['Content-Type', 'application/json'], body: `{"error":"${evil.replaceAll('"', '\\"')}` },
  '/huge': { status: 500, headers: ['Content-Type', 'application/json'], body: `["${short.replaceAll('"', '\\"')}${'x'.repeat(256 << 10)}"]` },
  '/latin': { status: 500, headers: ['Content-Type', 'text/plain', 'X-Odd', Buffer.from('caf\xe9 <x-evil>', 'latin1').toString('latin1')], body: Buffer.from('caf\xe9', 'latin1') },
};

let world;
before(async () => {
  world = await World.begin();
  const { relay, receiver } = world;
  for (const [path, answer] of Object.entries(bodies)) {
    receiver.answer(path, answer);
    await relay.api('POST', '/v1/endpoints', {
      name: `evil-${path.slice(1)}`, url: `${receiver.url}${path}`, tenants: [short], description: evil, labels: { odd: short }, headers: { 'X-Mine': short },
    });
  }
  await relay.send([
    { id: 'evt_evil', type: '__proto__.constructor', tenant: short, key: evil.slice(0, 200), data: { [evil]: evil, customer: short, reversed, nested: [{ deep: evil }], big: 0 } },
    { id: 'evt_plain', type: 'note.evil', tenant: short, key: reversed, data: evil },
  ]);
  await relay.send(`{"id":"evt_numbers","type":"note.evil","tenant":${JSON.stringify(short)},"data":{"exact":123456789012345678901234567890.10,"half":"\\ud83d","zero":"\\u0000","huge":"${'y'.repeat(200_000)}"}}`);
  await until('the attempts', async () => (await relay.deliveries('type=note.evil&limit=100')).every((d) => d.attempts > 0));
});
after(() => world.end());

// harmless fails if something of a stranger became part of the page.
async function harmless(page) {
  const found = await page.evaluate(() => [...document.querySelectorAll('x-evil, img, iframe, object, embed, base, main script, meta[http-equiv]')].map((e) => e.outerHTML));
  assert.deepEqual(found, [], page.url());
}

async function watched(arrive, options) {
  const v = await arrive(world.relay, options);
  v.page.on('dialog', (d) => { v.problems.push(`a dialog says ${d.message()}`); return d.dismiss(); });
  return v;
}

story('data, keys, tenants, answers, descriptions and addresses of strangers are text', async (arrive) => {
  const v = await watched(arrive);
  const { page } = v;
  await v.login();
  for (const { id, endpoint, event } of await world.relay.deliveries('data.customer=' + encodeURIComponent(short))) {
    await v.open(`/deliveries/${id}`, 'delivery');
    await harmless(page);
    const text = await page.locator('main').innerText();
    assert.ok(text.includes('<x-evil'), `delivery of ${event.id} to ${endpoint} shows nothing of the text`);
    assert.ok(text.includes(short), 'the tenant is not shown');
  }
  for (const path of Object.keys(bodies)) {
    const name = `evil-${path.slice(1)}`;
    const { id } = await world.one(`endpoint=${name}`);
    await v.open(`/deliveries/${id}`, 'delivery');
    await harmless(page);
    for (const [route, screen] of [[`/endpoints/${name}`, 'endpoint'], [`/endpoints/${name}/edit`, 'endpoint-form'], [`/endpoints/${name}/test`, 'test']]) {
      await v.open(route, screen);
      await harmless(page);
    }
  }
  for (const id of ['evt_evil', 'evt_plain', 'evt_numbers']) {
    await v.open(`/events/${id}`, 'event');
    await harmless(page);
  }
  const numbers = await page.locator('main').innerText();
  assert.ok(numbers.includes('123456789012345678901234567890.10'), 'a number is not shown as it came');
  for (const [path, screen] of [['/', 'overview'], ['/deliveries', 'deliveries'], ['/endpoints', 'endpoints'], ['/audit', 'audit'], ['/jobs', 'jobs'], ['/links', 'links'], ['/explain', 'explain'], ['/types', 'types'], ['/alerts', 'alerts'], ['/config', 'config']]) {
    await v.open(path, screen);
    await harmless(page);
  }
});

story('what arrives live is text', async (arrive) => {
  const v = await watched(arrive);
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  await page.locator('[data-live][data-state=live]').waitFor();
  await world.relay.send({ id: 'evt_evil_live', type: 'note.evil', tenant: short, key: evil.slice(0, 200), data: evil });
  const ids = (await world.relay.deliveries('event=evt_evil_live')).map((d) => d.id);
  assert.ok(ids.length > 0);
  for (const id of ids) await page.locator(`tr[data-id="${id}"]`).waitFor();
  await harmless(page);
});

story('words of the address are text, or nothing', async (arrive) => {
  const v = await watched(arrive);
  const { page } = v;
  await v.login();
  const q = encodeURIComponent(evil);
  v.expect(400, '/');
  v.expect(404, '/');
  v.expect(422, '/deliveries/bulk'); // nothing matches
  for (const path of [
    `/search?q=${q}`, `/deliveries?endpoint=${q}`, `/deliveries?tenant=${q}`, `/deliveries?type=${q}`, `/deliveries?state=${q}`, `/deliveries?since=${q}`, `/deliveries?key=${q}`,
    `/deliveries?label.${q}=1`, `/deliveries?data.${q}=1`, `/deliveries?data.customer=${q}`, `/deliveries?${q}=1`, `/deliveries?cursor=${q}`, `/deliveries?limit=${q}`, `/deliveries?event=${q}&event=2`,
    `/deliveries/${q}`, `/events/${q}`, `/endpoints/${q}`, `/endpoints?q=${q}`, `/jobs/${q}`, `/${q}`, `/deliveries/bulk?action=${q}`, `/deliveries/bulk?action=discard&tenant=${q}`, `/login?next=${q}`, `/?lang=${q}`,
    '/deliveries/%00', '/deliveries/%ff%fe', '/events/..%2f..%2fv1%2fconfig', '/deliveries?state=failed&state=failed', '/deliveries?%ff=%fe', '/audit?cursor=' + q, '/types?q=' + q,
  ]) {
    const answer = await page.goto(path);
    assert.ok(answer.status() < 500, `${path} answers ${answer.status()}`);
    assert.equal(await page.locator('main[data-screen]').count(), 1, `${path} is no screen`);
    await harmless(page);
  }
});

story('languages that are no language are ignored', async (arrive) => {
  for (const languages of [evil, '*', ';', 'en-'.repeat(3000), '\u00e9']) {
    const v = await watched(arrive, { languages });
    await v.open('/login', 'login');
    await harmless(v.page);
    assert.equal(await v.page.locator('html').getAttribute('lang'), 'en');
    await v.leave();
  }
});

story('a description that is typed into a form comes back as it was', async (arrive) => {
  const v = await watched(arrive);
  const { page } = v;
  await v.login();
  await page.goto('/endpoints/evil-html/edit');
  assert.equal(await page.getByLabel('Description').inputValue(), evil);
});
