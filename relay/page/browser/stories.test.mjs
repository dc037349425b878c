import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { adminToken } from './relay.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

story('a failed delivery is found, understood, sent again and seen to arrive', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.open('/', 'login');
  await page.getByLabel('Token').fill(adminToken);
  await page.getByRole('button', { name: 'Log in' }).click();
  await v.at('overview');
  await page.getByRole('link', { name: 'Deliveries', exact: true }).first().click();
  await v.at('deliveries');
  await page.getByLabel('State', { exact: true }).selectOption('failed');
  await page.waitForURL(/state=failed/);
  await page.getByLabel('Endpoint', { exact: true }).fill('crm');
  await page.getByRole('button', { name: 'Find' }).click();
  await page.waitForURL(/endpoint=crm/);
  const row = page.locator('tr[data-id]').first();
  const id = await row.getAttribute('data-id');
  await row.getByRole('link').first().click();
  await v.at('delivery');
  assert.match(page.url(), new RegExp(id));
  await page.getByText('customer c-17 is not known').first().waitFor(); // what came back
  await page.getByText('422').first().waitFor();

  let answer;
  const mended = new Promise((resolve) => { answer = resolve; });
  world.receiver.answer('/crm', async () => { await mended; return { status: 200, body: 'welcome back' }; });
  const before = world.receiver.at('/crm').length;
  await page.getByRole('button', { name: 'Send again' }).click();
  await page.waitForURL((url) => !url.pathname.includes(id));
  await v.at('delivery');
  await world.receiver.arrived('/crm', before + 1);
  const opened = await page.evaluate(() => performance.timeOrigin);
  answer();
  await page.locator('.verdict').getByText('delivered', { exact: true }).waitFor(); // while the pointer rests where it clicked
  assert.equal(await page.evaluate(() => performance.timeOrigin), opened, 'the page was loaded again');
  await page.reload();
  await page.getByText('welcome back').filter({ visible: true }).first().waitFor();
  const again = await world.one('endpoint=crm&state=delivered');
  assert.equal(again.redelivery_of, id);
});

// signature is the one that a secret of Standard Webhooks gives for a request.
function signature(request, secret) {
  const text = `${request.headers['webhook-id']}.${request.headers['webhook-timestamp']}.${request.body}`;
  return `v1,${createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64')).update(text).digest('base64')}`;
}

story('an endpoint is made, tested, given a new secret, changed and deleted', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  const { receiver } = world;
  await v.login();
  await v.open('/endpoints', 'endpoints');
  await page.getByRole('link', { name: 'New endpoint' }).click();
  await v.at('endpoint-form');
  await page.getByLabel('URL', { exact: true }).fill('no address');
  await page.getByLabel('Name', { exact: true }).fill('walked-in');
  await page.getByLabel('Description', { exact: true }).fill('Made in a browser');
  v.expect(422, '/endpoints');
  await page.getByRole('button', { name: 'Make it' }).click();
  await page.getByRole('alert').waitFor();
  assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), 'walked-in', 'what was typed is lost');
  await page.getByLabel('URL', { exact: true }).fill(`${receiver.url}/walked-in`);
  await page.getByLabel('Events', { exact: true }).fill('never.sent');
  await page.getByRole('button', { name: 'Make it' }).click();
  await v.at('secret');
  await page.getByText('The endpoint is made.').waitFor();
  await page.getByRole('link', { name: 'To the endpoint' }).click();
  await v.at('endpoint');

  const test = async (words) => {
    await page.getByRole('link', { name: 'Send test' }).click();
    await v.at('test');
    await page.getByRole('button', { name: 'Send it now' }).click();
    await v.at('delivery');
    await page.getByText(words).waitFor();
    await v.open('/endpoints/walked-in', 'endpoint');
    return receiver.at('/walked-in').at(-1);
  };
  const secrets = async () => {
    await page.getByRole('link', { name: 'Secret' }).click();
    await v.at('secret');
    for (const s of await page.locator('summary').all()) await s.click();
    return page.locator('code.secret').allInnerTexts();
  };
  const first = await test('The test was delivered.');
  receiver.answer('/walked-in', { status: 500, body: 'no disk' });
  await test('The test failed.');
  receiver.answer('/walked-in', { status: 200 });
  const [old] = await secrets();
  assert.equal(first.headers['webhook-signature'], signature(first, old));
  await page.getByRole('button', { name: 'Rotate' }).click();
  await page.getByText('Rotated: the new secret is the first one.').waitFor();
  await v.open('/endpoints/walked-in', 'endpoint');
  const [fresh, along] = await secrets();
  assert.notEqual(fresh, old);
  assert.equal(along, old);
  await v.open('/endpoints/walked-in', 'endpoint');
  const last = await test('The test was delivered.');
  assert.equal(last.headers['webhook-signature'], `${signature(last, fresh)} ${signature(last, old)}`);

  await page.getByRole('link', { name: 'Edit', exact: true }).click();
  await v.at('endpoint-form');
  await page.getByLabel('Description', { exact: true }).fill('Changed in a browser');
  await page.getByRole('button', { name: 'Save' }).click();
  await v.at('endpoint');
  await page.getByText('Changed in a browser').first().waitFor();
  await page.getByRole('link', { name: 'Delete' }).click();
  await v.at('endpoint-delete');
  await page.getByRole('button', { name: 'Delete' }).click();
  await v.at('endpoints');
  await page.getByText('The endpoint is deleted.').waitFor();
});

story('a list of deliveries follows what happens, and waits while it is paused', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await v.open('/deliveries?endpoint=billing', 'deliveries');
  await page.locator('[data-live][data-state=live]').waitFor();
  await world.relay.send({ id: 'evt_live_1', type: 'invoice.paid', data: {} });
  const first = page.locator('tr[data-id]').first();
  await until('the new row', async () => (await first.textContent()).includes('invoice.paid') && (await world.one('event=evt_live_1')).id === (await first.getAttribute('data-id')));

  await page.getByRole('button', { name: 'Pause updates', exact: true }).click();
  await world.relay.send({ id: 'evt_live_2', type: 'invoice.paid', data: {} });
  await page.getByRole('button', { name: '1 new' }).waitFor();
  assert.notEqual(await first.getAttribute('data-id'), (await world.one('event=evt_live_2')).id);
  await page.getByRole('button', { name: '1 new' }).click();
  await until('the row that waited', async () => (await first.getAttribute('data-id')) === (await world.one('event=evt_live_2')).id);
});

story('the screen of an endpoint shows what somebody else does to it', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await v.open('/endpoints/globex', 'endpoint');
  await page.locator('[data-live][data-state=live]').waitFor();
  const opened = await page.evaluate(() => performance.timeOrigin);
  for (const [verb, state] of [['pause', 'paused'], ['resume', 'active']]) {
    await world.relay.api('POST', `/v1/endpoints/globex/${verb}`);
    await page.locator('h1').getByText(state, { exact: true }).waitFor();
  }
  assert.equal(await page.evaluate(() => performance.timeOrigin), opened, 'the page was loaded again');
});

story('the screen of an endpoint shows what happened before it was live', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await page.route('**/live?*', async (route) => {
    await world.relay.api('POST', '/v1/endpoints/globex/pause');
    await route.continue();
  });
  await v.open('/endpoints/globex', 'endpoint');
  await page.locator('h1').getByText('paused', { exact: true }).waitFor();
  await world.relay.api('POST', '/v1/endpoints/globex/resume');
});

story('a customer enables an endpoint again that Relay disabled', async (arrive) => {
  const { relay, receiver } = world;
  await relay.api('POST', '/v1/endpoints', { name: 'gone-of-acme', url: `${receiver.url}/gone`, tenants: ['acme'], events: ['gone.*'], sign: ['none'] });
  receiver.answer('/gone', { status: 410 });
  await relay.send({ id: 'evt_gone_1', type: 'gone.first', tenant: 'acme', data: {} });
  await until('the endpoint to be disabled', async () => (await relay.api('GET', '/v1/endpoints/gone-of-acme')).state === 'disabled');
  await relay.send({ id: 'evt_gone_2', type: 'gone.second', tenant: 'acme', data: {} });
  const v = await arrive(relay);
  const { page } = v;
  await v.login(await world.link('acme', ['read', 'endpoints']));
  await v.open('/endpoints/gone-of-acme/edit', 'endpoint-form');
  await page.getByText('Another URL enables it as you save').waitFor();
  receiver.answer('/gone', { status: 200 });
  await v.open(`/deliveries/${(await world.one('event=evt_gone_2')).id}`, 'delivery');
  await page.getByRole('button', { name: 'Enable and send 1 held delivery' }).click();
  await v.at('endpoint');
  await page.locator('h1').getByText('active', { exact: true }).waitFor();
  await until('the delivery that was held', async () => (await world.one('event=evt_gone_2')).state === 'delivered');
  const { items } = await relay.api('GET', '/v1/audit?verb=enable');
  assert.match(items[0].who, /link/);
  assert.equal(items[0].what, 'endpoint gone-of-acme');
});

story('the keyboard finds, moves, opens and helps', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  await page.keyboard.press('/');
  await page.keyboard.type('evt_order_4');
  await page.keyboard.press('Enter');
  await v.at('event');
  await page.goBack();
  await v.at('deliveries');

  const ids = await page.locator('tr[data-id]').evaluateAll((rows) => rows.map((r) => r.dataset.id));
  for (const key of ['j', 'j', 'j', 'k']) await page.keyboard.press(key);
  await page.keyboard.press('Enter');
  await v.at('delivery');
  assert.ok(page.url().endsWith(ids[1]), `${page.url()} is not ${ids[1]}`);

  await page.keyboard.press('?');
  const help = page.getByRole('dialog');
  await help.waitFor();
  await help.getByText('Next and previous row').waitFor();
  await page.keyboard.press('Escape');
  await help.waitFor({ state: 'hidden' });
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.matches('a, button, input, [tabindex]')), true);
  await page.keyboard.press('g');
  await page.keyboard.press('e');
  await v.at('endpoints');
});

story('the search box takes an id of any kind, a type, an endpoint and anything else', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  const delivery = await world.one('endpoint=crm');
  for (const [what, path] of [
    [delivery.id, `/deliveries/${delivery.id}`],
    ['evt_order_4', '/events/evt_order_4'],
    ['billing', '/endpoints/billing'],
    ['invoice.paid', '/deliveries?type=invoice.paid'],
  ]) {
    await page.getByRole('searchbox').fill(what);
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => (url.pathname + url.search).startsWith(path));
  }
  for (const what of ["' OR 1=1 --", '<b>x</b>', '%', '../../etc/passwd', '☃', 'x'.repeat(10_000)]) {
    await page.getByRole('searchbox').fill(what);
    await page.keyboard.press('Enter');
    await v.at('search');
    assert.equal(await page.getByRole('searchbox').inputValue(), what);
    await page.goto('/deliveries');
  }
});

story('the language is the browser\'s, until another is chosen', async (arrive) => {
  const words = { en: 'Deliveries', 'zh-Hant': '投遞', 'zh-Hans': '投递' };
  for (const [languages, lang] of [
    ['zh-TW,zh;q=0.9,en;q=0.8', 'zh-Hant'], ['zh-HK', 'zh-Hant'], ['zh-CN,en;q=0.5', 'zh-Hans'], ['zh', 'zh-Hans'], ['de-DE,fr;q=0.3', 'en'],
    ['en;q=zzz,,;;=,*;q=0', 'en'], ['q=1;zh-Hant;'.repeat(200), 'en'], ['<script>alert(1)</script>', 'en'],
  ]) {
    const v = await arrive(world.relay, { languages });
    await v.page.goto('/login');
    assert.equal(await v.page.locator('html').getAttribute('lang'), lang, languages);
    await v.page.locator('#token').fill(adminToken);
    await v.page.locator('main form button').click();
    await v.at('overview');
    await v.page.getByRole('navigation').getByText(words[lang], { exact: true }).waitFor();
    await v.leave();
  }
  const v = await arrive(world.relay);
  await v.login();
  await v.open('/deliveries?state=failed', 'deliveries');
  for (const [name, lang] of [['繁體中文', 'zh-Hant'], ['简体中文', 'zh-Hans'], ['English', 'en']]) {
    await v.page.getByRole('link', { name }).click();
    await v.page.locator(`html[lang="${lang}"]`).waitFor();
    assert.match(v.page.url(), /state=failed/);
    await v.open('/', 'overview');
    await v.page.getByRole('navigation').getByText(words[lang], { exact: true }).waitFor();
    await v.open('/deliveries?state=failed', 'deliveries');
  }
});

story('what begins to need a person shows on the overview at once, and moves nothing under the pointer', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await v.open('/', 'overview');
  await page.locator('[data-live][data-state=live]').waitFor();
  const opened = await page.evaluate(() => performance.timeOrigin);
  const row = page.locator('table.endpoints tr[data-id]').first();
  const need = page.locator('[data-need*="globex"]');
  const alarm = page.locator('[data-alarm]');
  assert.equal(await need.count(), 0);
  await row.hover();
  const at = (await row.boundingBox()).y;
  await world.relay.api('POST', '/v1/endpoints/globex/pause');
  await alarm.getByText('globex').waitFor();
  assert.equal((await row.boundingBox()).y, at, 'the row under the pointer moved');
  assert.equal(await need.count(), 0);
  await alarm.getByRole('button', { name: 'Show' }).click();
  await need.waitFor();
  await alarm.waitFor({ state: 'hidden' });

  await page.mouse.move(1, 1); // the menu
  await world.relay.api('POST', '/v1/endpoints/globex/resume');
  await need.waitFor({ state: 'detached' });
  assert.equal(await alarm.isVisible(), false);
  await world.relay.api('POST', '/v1/endpoints/globex/pause');
  await need.waitFor();
  assert.equal(await alarm.isVisible(), false, 'it is told twice');
  await world.relay.api('POST', '/v1/endpoints/globex/resume');
  await need.waitFor({ state: 'detached' });

  await page.locator('[data-need]').first().hover();
  await world.relay.api('POST', '/v1/endpoints/globex/pause');
  await alarm.getByText('globex').waitFor();
  assert.equal(await need.count(), 0, 'what is under the pointer changed');
  await alarm.getByRole('button', { name: 'Show' }).click();
  await need.waitFor();
  await world.relay.api('POST', '/v1/endpoints/globex/resume');
  assert.equal(await page.evaluate(() => performance.timeOrigin), opened, 'the page was loaded again');
});

story('times are in the zone of the viewer, with UTC on hover', async (arrive) => {
  const v = await arrive(world.relay, { zone: 'Asia/Taipei' });
  await v.login();
  const { id } = await world.one('endpoint=crm');
  await v.open(`/deliveries/${id}`, 'delivery');
  const time = v.page.locator('main time[datetime]').first();
  const utc = await time.getAttribute('datetime');
  const there = new Date(utc).toLocaleTimeString('en', { timeZone: 'Asia/Taipei', timeStyle: 'medium', hourCycle: 'h23' });
  const shown = `${await time.textContent()} ${await time.getAttribute('title')}`;
  assert.ok(shown.includes(utc), `${shown} has no ${utc}`);
  assert.ok(shown.replaceAll(/\s/g, ' ').includes(there.replaceAll(/\s/g, ' ')), `${shown} has no ${there}`);
});
