import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';

import { readerToken, World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

story('two tenants with links see only their own, and nothing of the other is there', async (arrive) => {
  for (const [mine, other] of [['acme', 'globex'], ['globex', 'acme']]) {
    const v = await arrive(world.relay);
    const { page } = v;
    await v.enter(await world.link(mine, ['read', 'payload', 'secrets', 'redeliver', 'test', 'endpoints']));
    await v.open('/endpoints', 'endpoints');
    await page.getByRole('link', { name: mine, exact: true }).waitFor();
    for (const foreign of [other, 'billing', 'crm']) assert.equal(await page.getByRole('link', { name: foreign, exact: true }).count(), 0, `${mine} sees ${foreign}`);
    await v.open('/deliveries', 'deliveries');
    const text = await page.locator('main').innerText();
    assert.ok(!text.includes(other) && !text.includes('billing'), text);

    const theirs = await world.one(`endpoint=${other}`);
    const paths = [`/deliveries/${theirs.id}`, `/events/${theirs.event.id}`, `/endpoints/${other}`, '/endpoints/billing', `/endpoints/${other}/secret`, `/endpoints/${other}/edit`, '/endpoints/none', '/deliveries/dlv_none', '/events/evt_none'];
    const shown = new Set();
    for (const path of paths) {
      v.expect(404, path);
      const answer = await page.goto(path);
      assert.equal(answer.status(), 404, `${mine} at ${path}`);
      shown.add(await page.locator('main h1').innerText());
    }
    assert.equal(shown.size, 1, `what is foreign looks other than what is not there: ${[...shown]}`);
    await page.goto('/');
    await page.getByRole('searchbox').fill(theirs.id);
    await page.keyboard.press('Enter');
    await v.at('search');
    await v.open(`/deliveries?event=${theirs.event.id}`, 'deliveries');
    assert.equal(await page.locator('tr[data-id]').count(), 0);

    for (const [path, status] of [['/config', 404], ['/audit', 404], ['/links', 404], ['/alerts', 404], ['/explain', 404]]) {
      v.expect(status, path);
      assert.equal((await page.goto(path)).status(), status, `${mine} at ${path}`);
    }
  }
});

story('what a reader may not do is not offered, and data stays hidden', async (arrive) => {
  const v = await arrive(world.relay);
  const { page } = v;
  await v.login(readerToken);
  const { id } = await world.one('endpoint=crm');
  await v.open(`/deliveries/${id}`, 'delivery');
  for (const name of ['Send again', 'Try now', 'Discard']) assert.equal(await page.getByRole('button', { name }).count(), 0, name);
  const html = await page.content();
  assert.ok(!html.includes('is not known'), 'the answer of the receiver is shown');
  assert.ok(!html.includes('"customer"') && !html.includes('&#34;customer&#34;'), 'the data is shown');
  v.expect(403, '/deliveries/');
  const answer = await v.context.request.post(`/deliveries/${id}/redeliver`, { maxRedirects: 0, failOnStatusCode: false });
  assert.equal(answer.status(), 403);
});
