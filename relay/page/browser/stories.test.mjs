import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { adminToken } from './relay.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

story('a list of deliveries follows what happens, and waits while it is paused', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login();
  await v.open('/deliveries?endpoint=billing', 'deliveries');
  await page.locator('[data-live][data-state=live]').waitFor();
  await world.relay.send({ id: 'evt_live_1', type: 'invoice.paid', data: {} });
  const first = page.locator('tr[data-id]').first();
  await until('the new row', async () => (await first.textContent()).includes('invoice.paid') && (await world.one('event=evt_live_1')).id === (await first.getAttribute('data-id')));

  await page.getByRole('button', { name: 'Pause', exact: true }).click();
  await world.relay.send({ id: 'evt_live_2', type: 'invoice.paid', data: {} });
  await page.getByRole('button', { name: '1 new' }).waitFor();
  assert.notEqual(await first.getAttribute('data-id'), (await world.one('event=evt_live_2')).id);
  await page.getByRole('button', { name: '1 new' }).click();
  await until('the row that waited', async () => (await first.getAttribute('data-id')) === (await world.one('event=evt_live_2')).id);
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
